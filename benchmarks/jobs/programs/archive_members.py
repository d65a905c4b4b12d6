"""Members of archives in memory, with the standard library's zipfile."""

from __future__ import annotations

import io
import zipfile


def work(archive: bytes) -> dict[str, int]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: len(opened.read(name)) for name in opened.namelist()}


def items() -> list[bytes]:
    made = []
    for number in range(100):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in range(30):
                archive.writestr(f"m{member}.txt", f"{number} {member} " * 150)
        made.append(stream.getvalue())
    return made
