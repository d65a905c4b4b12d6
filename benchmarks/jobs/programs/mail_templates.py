"""Letters from a template, with jinja2."""

from __future__ import annotations

import jinja2

TEMPLATE = jinja2.Environment(autoescape=True).from_string(
    "Dear {{ name }},{% for line in lines %}\n{{ loop.index }}. {{ line.what | upper }}: "
    "{{ '%.2f' | format(line.price) }}{% if line.price > 40 %} (!){% endif %}{% endfor %}\n"
)


def work(order: dict[str, object]) -> str:
    return TEMPLATE.render(order)


def items() -> list[dict[str, object]]:
    return [
        {
            "name": f"customer <{number}>",
            "lines": [{"what": f"thing {n}", "price": n * 1.5 + number} for n in range(260)],
        }
        for number in range(150)
    ]
