"""Thread pools of native libraries (BLAS, OpenMP) in workers: no more threads than cores to spend.

``n`` workers with ``n`` native threads each would compete for the cores. A library reads its
variable when it is loaded, so variables suffice for libraries that a worker imports itself. For
those that it was forked with, and in a warm worker whose budget has changed, threadpoolctl is used,
if it is installed.

Guarantees: only worker processes are changed, never the program's own; variables that the program
has set win.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from parallax._core.lazy_import import ctypes
from parallax._core.light_stdlib import Any, NamedTuple

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


#: What a library exports, by a part of its file's name: the variable that it obeys, and the names
#: of the functions that tell and set its number of threads. As in threadpoolctl, whose import takes
#: longer than a fork.
_EXPORTS = {
    "openblas": (
        "OPENBLAS_NUM_THREADS",
        [
            (f"{name}_get_num_threads{suffix}", f"{name}_set_num_threads{suffix}")
            for name in ("openblas", "scipy_openblas")
            for suffix in ("", "64_", "_64", "64")
        ],
    ),
    "omp": ("OMP_NUM_THREADS", [("omp_get_max_threads", "omp_set_num_threads")]),
    "mkl_rt": ("MKL_NUM_THREADS", [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")]),
}


class NativePool(NamedTuple):
    """The thread pool of a loaded library."""

    variable: str
    threads: Callable[[], int]
    #: may start threads.
    resize: Callable[[int], Any]
    #: OpenBLAS's own variable, where it is exported. In a fork, which has no threads of the pool,
    #: ``resize`` would start them first, and they spin for some 30 ms.
    cell: Any = None

    def shrink(self, threads: int) -> bool:
        """Have the pool use fewer threads than it may, in a fork; False if that is not possible."""
        if self.cell is None or not 0 < threads <= self.cell.value:
            return False
        self.cell.value = threads
        return True


_found: list[NativePool] = []


def native_pools(*, again: bool = False) -> list[NativePool]:
    """The thread pools of loaded libraries, looked for ``again``; OSError without /proc."""
    if again or not _found:
        _found[:] = _find_pools()
    return _found


def _find_pools() -> list[NativePool]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps if "/" in line}
    pools = []
    for path in paths:
        file = path.rpartition("/")[2]
        for part, (variable, names) in _EXPORTS.items():
            # Not `_decomp.so`: to open each of a hundred such modules takes long.
            if part in file and file.startswith("lib") and (library := _loaded(path)) is not None:
                for count, resize in names:
                    if hasattr(library, count) and hasattr(library, resize):
                        functions = getattr(library, count), getattr(library, resize)
                        pools.append(NativePool(variable, *functions, _cell(library)))
                        break
    return pools


def _cell(library: Any) -> Any:
    try:
        return ctypes.c_int.in_dll(library, "blas_cpu_number")
    except ValueError:
        return None


def _loaded(path: str) -> Any:
    try:
        return ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
    except OSError:  # a file that is mapped and no library
        return None


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
