"""Passwords checked, with bcrypt."""

from __future__ import annotations

import bcrypt

SALT = b"$2b$05$" + b"abcdefghijklmnopqrstuu"


def work(password: bytes) -> bytes:
    return bcrypt.hashpw(password, SALT)


def items() -> list[bytes]:
    return [b"password %d" % n for n in range(100)]
