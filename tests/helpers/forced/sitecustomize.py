"""Found by every interpreter whose PYTHONPATH has this folder, and so by worker processes too."""

import os

if name := os.environ.get("PARALLAX_TESTS_PLATFORM"):
    import forced_platform

    forced_platform.install(name)
