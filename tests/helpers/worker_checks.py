"""What must hold of pools, crews and executors' workers whenever none of their methods runs."""

from __future__ import annotations

from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.task_workers import TaskWorkers
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.parent.worker_set import WorkerSet
from parallax._backends.processes.parent.worker_state import (
    BORROWED,
    CONDEMNED,
    IDLE,
    STARTING,
    WORKING,
)


def check_pool(pool: Pool) -> None:
    with pool._lock:
        assert {w.state for w in pool._idle} <= {STARTING, IDLE}
        assert pool._alive.issuperset(pool._idle)
        assert pool._alive.isdisjoint(pool._hired)
        assert all(w.alive for w in (*pool._alive, *pool._hired))
        # What is lent is idle for nobody else.
        lent = pool._alive.difference(pool._idle)
        assert not any(w.state is IDLE for w in lent)
        assert not any(w.alive for w in pool._leaving)


def check_workers(workers: WorkerSet[WorkerClient]) -> None:
    registered = {key.data for key in workers.selector().get_map().values()}
    for number, worker in workers.workers.items():
        assert worker.number == number, worker
        assert worker.alive, (number, worker.state)
        if worker.state is not CONDEMNED:  # that one may have been borrowed before
            assert (worker in registered) == (worker.state is not BORROWED), worker.state
        registered.discard(worker)
    left = [each for each in registered if isinstance(each, WorkerClient)]
    assert not left, left


def check_task_workers(workers: TaskWorkers) -> None:
    check_workers(workers)
    assert len(workers.workers) <= workers.max_workers
    idle = [worker for worker in workers.workers.values() if worker.state is IDLE]
    assert sorted(idle, key=id) == sorted(workers._idle, key=id)
    for worker in workers.workers.values():
        assert worker.batches or worker.state not in {WORKING, BORROWED}
        assert not worker.batches or worker.state not in {STARTING, IDLE}
        assert all(task.worker is worker for task in worker.tasks)
    assert not any(task.worker for task in workers.queue.tasks)
    tasks = [*workers.held, *workers.queue.tasks]
    assert len(set(tasks)) == len(tasks)
