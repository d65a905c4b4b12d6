"""C code that releases the GIL: threads scale on it, except where they do not."""

from __future__ import annotations

import hashlib
import io
import random
import sqlite3
import zlib
from collections.abc import Callable

import numpy as np

from benchmarks.routing.workloads.definition import Workload


def hash_three_ways(block: bytes) -> str:
    """The digests that a download page shows for a file of 4 MB."""
    return " ".join(
        hashlib.new(name, block).hexdigest() for name in ("sha256", "sha512", "sha3_256")
    )


def hash_blocks() -> tuple[Callable[[bytes], str], list[bytes]]:
    source = random.Random(10)
    return hash_three_ways, [source.randbytes(4_000_000) for _ in range(44)]


def stretch_password(password: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 60_000)


def stretch_passwords() -> tuple[Callable[[str], bytes], list[str]]:
    return stretch_password, [f"correct horse {number}" for number in range(56)]


def compress(block: bytes) -> bytes:
    return zlib.compress(block, 6)


def compress_blocks() -> tuple[Callable[[bytes], bytes], list[bytes]]:
    source = random.Random(11)
    words = [format(source.getrandbits(30), "x").encode() for _ in range(3000)]
    return compress, [b" ".join(source.choices(words, k=110_000)) for _ in range(28)]


def sorted_quantiles(seed: int) -> list[int]:
    """Sort 1.5 million integers made from a seed."""
    numbers = np.random.default_rng(seed).integers(0, 2**40, 1_500_000)
    numbers.sort(kind="stable")
    return [int(number) for number in numbers[::250_000]]


def numpy_sort() -> tuple[Callable[[int], list[int]], list[int]]:
    return sorted_quantiles, list(range(8))


def make_thumbnail(photo: bytes) -> bytes:
    """Decode, shrink and blur a picture; about what an upload handler does."""
    from PIL import Image, ImageFilter

    with Image.open(io.BytesIO(photo)) as image:
        small = image.convert("RGB").resize((400, 300), Image.Resampling.LANCZOS)
    pixels: bytes = small.filter(ImageFilter.GaussianBlur(6)).tobytes()
    return pixels


def thumbnails() -> tuple[Callable[[bytes], bytes], list[bytes]]:
    from PIL import Image

    photos = []
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 255, (150, 200, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=85)
        photos.append(encoded.getvalue())
    return make_thumbnail, [bytes(bytearray(photos[index % 6])) for index in range(24)]


def query_in_memory(seed: int) -> list[tuple[int, int, int]]:
    """Fill and query an SQLite database: the GIL is given up at every row, and fought for again."""
    source = random.Random(seed)
    rows = [(number, source.randrange(50), source.randrange(1000)) for number in range(4000)]
    database = sqlite3.connect(":memory:")
    try:
        database.execute("create table sale (id integer primary key, shop integer, price integer)")
        database.executemany("insert into sale values (?, ?, ?)", rows)
        database.execute("create index by_shop on sale (shop)")
        query = "select shop, count(*), sum(price) from sale group by shop order by 3 desc limit 5"
        return database.execute(query).fetchall()
    finally:
        database.close()


def sqlite_memory() -> tuple[Callable[[int], list[tuple[int, int, int]]], list[int]]:
    return query_in_memory, list(range(120))


def multiply(seed: int) -> float:
    """A product of matrices of whole numbers, so that the sum is exact in any order of adding."""
    source = np.random.default_rng(seed)
    left = source.integers(-8, 8, (1200, 1200)).astype(np.float64)
    right = source.integers(-8, 8, (1200, 1200)).astype(np.float64)
    product = left
    for _ in range(3):
        product = (product @ right) % 64
    return float(product.sum())


def blas_matmul() -> tuple[Callable[[int], float], list[int]]:
    return multiply, list(range(6))


WORKLOADS = (
    Workload("hash_blocks", "C that releases the GIL", hash_blocks, "59734deb265c", quick=True),
    Workload("pbkdf2", "C that releases the GIL", stretch_passwords, "0eb998aab4b8"),
    Workload("zlib_compress", "C that releases the GIL", compress_blocks),
    Workload("numpy_sort", "C that releases the GIL", numpy_sort, "7467a85a3579"),
    Workload("pillow_thumbnails", "C that releases the GIL", thumbnails),
    Workload(
        "sqlite_memory",
        "releases the GIL, does not scale on threads",
        sqlite_memory,
        "804a078d641c",
    ),
    Workload("blas_matmul", "native threads (BLAS)", blas_matmul, "bc9a7645e773"),
)
