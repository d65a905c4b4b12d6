"""Headings of HTML pages as a browser reads them, with html5lib."""

from __future__ import annotations

import html5lib


def work(page: str) -> list[str]:
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    return [heading.text or "" for heading in tree.iter("h2")]


def items() -> list[str]:
    return [
        "<!doctype html><title>t</title>"
        + "".join(f"<h2>part {page}.{n}</h2><p>some <b>text</b> &amp; more" for n in range(12))
        for page in range(110)
    ]
