"""What a backend that is no name of parallax stands for, and who works for it.

Guarantees: no engine's package is imported unless it was asked for, or is what was passed.
"""

from __future__ import annotations

from parallax._backends.contract import CrewSetup
from parallax._backends.executor_workers import ExternalCrew
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.nesting import here, loading
from parallax._core.options import BACKENDS, Options, is_cluster
from parallax._core.records import replace

if TYPE_CHECKING:
    from parallax._backends import cluster_workers, dask_cluster
else:
    cluster_workers = lazy_module("parallax._backends.cluster_workers")
    dask_cluster = lazy_module("parallax._backends.dask_cluster")


def connected(options: Options) -> Options:
    """The options, with the cluster as backend that their backend is a name or a client of.

    Raises a BackendMissingError if its package is missing, a ValueError for no cluster, and a
    ConnectionError for one that cannot be reached.
    """
    backend = options.backend
    if backend in BACKENDS or here().level or loading():
        return options  # calls inside of items are loops
    if not is_cluster(backend):
        return options
    return replace(options, backend=dask_cluster.connect(backend, options.resources))


def crew_for(setup: CrewSetup, executor: Any) -> ExternalCrew:
    """The crew of a run on an executor of the program, or on a cluster."""
    if hasattr(executor, "share"):
        return cluster_workers.ClusterCrew(setup, executor)
    return ExternalCrew(setup, executor)
