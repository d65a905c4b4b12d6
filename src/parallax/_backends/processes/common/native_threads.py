"""Thread pools of native libraries (BLAS, OpenMP) in workers: no more threads than cores to spend.

``n`` workers with ``n`` native threads each would compete for the cores. A library reads its
variable when it is loaded, so variables suffice for libraries that a worker imports itself. For
those that it was forked with, and in a warm worker whose budget has changed, threadpoolctl is used,
if it is installed.

Guarantees: only worker processes are changed, never the program's own; variables that the program
has set win.
"""

from __future__ import annotations

import sys

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variables that size native thread pools.
THREAD_COUNT_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

#: Modules with such a pool. Without one of them threadpoolctl is not worth its import.
_MODULES_WITH_THREADS = ("numpy", "scipy", "torch", "sklearn", "mkl", "faiss")

#: The variable that a library obeys, by threadpoolctl's name of the library.
_LIBRARY_VARIABLES = {
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
    "openmp": "OMP_NUM_THREADS",
}


def variables(environment: Mapping[str, str]) -> tuple[str | None, ...]:
    """The values of the variables, to compare."""
    return tuple(environment.get(name) for name in THREAD_COUNT_VARIABLES)


def limit_loaded(environment: Mapping[str, str]) -> None:
    """Have loaded libraries obey the variables of an environment, as far as that is possible."""
    if not any(name in sys.modules for name in _MODULES_WITH_THREADS):
        return
    try:
        import threadpoolctl

        for library in threadpoolctl.ThreadpoolController().lib_controllers:
            threads = environment.get(_LIBRARY_VARIABLES.get(library.internal_api, ""), "")
            if threads.isdecimal() and int(threads) > 0:
                library.set_num_threads(int(threads))
    except Exception:  # noqa: BLE001 - not installed, or in conflict with a library
        return
