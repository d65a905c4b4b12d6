"""The text of pages of PDF files, with pypdf."""

from __future__ import annotations

import io

from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject


def work(document: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(document)).pages)


def items() -> list[bytes]:
    return [make_document(number) for number in range(90)]


def make_document(number: int) -> bytes:
    writer = PdfWriter()
    page = writer.add_blank_page(300, 400)
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    fonts = DictionaryObject({NameObject("/F1"): font})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    lines = "\n".join(f"(Line {line} of letter {number}) Tj T*" for line in range(16))
    content = DecodedStreamObject()
    content.set_data(f"BT /F1 12 Tf 12 TL 20 380 Td {lines} ET".encode())
    page[NameObject("/Contents")] = content
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()
