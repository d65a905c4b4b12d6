"""Links of HTML pages, with Beautiful Soup."""

from __future__ import annotations

from bs4 import BeautifulSoup


def work(page: str) -> list[str]:
    soup = BeautifulSoup(page, "html.parser")
    return [str(link["href"]) for link in soup.find_all("a", class_="out")]


def items() -> list[str]:
    return [
        "<ul>"
        + "".join(
            f"<li><a class='{'out' if n % 3 else 'in'}' href='/{page}/{n}'>page <i>{n}</i></a></li>"
            for n in range(18)
        )
        + "</ul>"
        for page in range(120)
    ]
