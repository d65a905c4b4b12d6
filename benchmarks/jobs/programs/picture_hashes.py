"""Perceptual hashes of pictures, with Pillow's pixel operations."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageFilter


def work(seed: int) -> int:
    picture = Image.linear_gradient("L").rotate(seed).resize((320, 320))
    edges = ImageChops.difference(picture, picture.filter(ImageFilter.GaussianBlur(3)))
    pixels = edges.resize((8, 8)).tobytes()
    mean = sum(pixels) / 64
    return sum(1 << n for n, pixel in enumerate(pixels) if pixel > mean)


def items() -> list[int]:
    return list(range(110))
