"""The sender's side of shared memory: slabs hold what they were given, and all of it comes back."""

from __future__ import annotations

import errno
import gc
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax import _lender
from parallax._extents import COLD, GRAIN, MAPPED, PRESENT
from parallax._lender import COPY, READ, SHARED, WRITE
from parallax._store import PAGE, PIECE, Store, make_store
from unit.lending import (
    Child,
    TaggedStore,
    block,
    content,
    elsewhere,
    failing,
    forks,
    held,
    lender,
    linux,
    pages,
)
