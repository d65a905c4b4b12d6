"""Tokens signed and checked, with cryptography."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def work(number: int) -> str:
    public = KEY.public_key()
    signatures = [KEY.sign(b"token %d %d" % (number, n)) for n in range(8)]
    for n, signature in enumerate(signatures):
        public.verify(signature, b"token %d %d" % (number, n))
    return signatures[-1].hex()


def items() -> list[int]:
    return list(range(110))
