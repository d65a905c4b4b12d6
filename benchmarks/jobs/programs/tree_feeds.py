"""Entries of feeds, with the standard library's ElementTree."""

from __future__ import annotations

from xml.etree import ElementTree


def work(feed: str) -> list[tuple[str, int]]:
    root = ElementTree.fromstring(feed)
    return [
        (entry.findtext("title", ""), len(entry.findtext("summary", "").split()))
        for entry in root.iter("entry")
    ]


def items() -> list[str]:
    return [
        "<feed>"
        + "".join(
            f"<entry><title>{feed} {n}</title><link href='/{n}'/><summary>{'some words ' * 20}"
            "</summary></entry>"
            for n in range(150)
        )
        + "</feed>"
        for feed in range(180)
    ]
