"""C code that lets go of the GIL (hashing, compression, much of NumPy) runs in threads at once."""

import hashlib

from parallax import parallel_map

passwords = [f"correct horse battery staple {n}" for n in range(24)]


def derive(password):
    """A key from a password, slow on purpose. OpenSSL does it without the GIL."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 60_000).hex()


keys = parallel_map(derive, passwords)

print("example: releases_the_gil")
print(keys.report)

assert len(set(keys)) == len(passwords)
assert keys[0] == derive(passwords[0])
