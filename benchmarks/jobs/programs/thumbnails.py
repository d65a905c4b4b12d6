"""Thumbnails of photos, with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def work(photo: bytes) -> bytes:
    with Image.open(io.BytesIO(photo)) as image:
        image.thumbnail((96, 96))
        saved = io.BytesIO()
        image.convert("RGB").save(saved, "JPEG")
    return saved.getvalue()


def items() -> list[bytes]:
    made = []
    for seed in range(60):
        noise = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noise).resize((640, 480)).save(stream, "JPEG")
        made.append(stream.getvalue())
    return made
