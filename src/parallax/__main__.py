"""``python -m parallax``: the commands of ``_cli``."""

from __future__ import annotations

import sys

from parallax._cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
