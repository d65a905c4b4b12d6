"""Sums of columns of small workbooks, with openpyxl."""

from __future__ import annotations

import io

import openpyxl


def work(workbook: bytes) -> list[float]:
    sheet = openpyxl.load_workbook(io.BytesIO(workbook), read_only=True).active
    columns = zip(*sheet.iter_rows(values_only=True), strict=True)
    return [float(sum(column)) for column in columns]


def items() -> list[bytes]:
    made = []
    for number in range(60):
        book = openpyxl.Workbook()
        for row in range(12):
            book.active.append([row * number, row + 0.5, number, row % 7])
        stream = io.BytesIO()
        book.save(stream)
        made.append(stream.getvalue())
    return made
