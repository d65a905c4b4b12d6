"""CPython's tests that parallax's executors do not pass, each with its reason.

A name is "Class.test" with ``*`` for anything; the classes are made per start method, for example
``ProcessPoolForkserverProcessPoolShutdownTest``. These tests are run all the same: one that passes
is a stale entry, and so is a pattern that fits no test. Both fail the run.

Only two kinds of reasons count: the test reaches into the standard library's private queues or its
manager thread, or parallax differs on purpose and is better for it.
"""

from __future__ import annotations

PRIVATE = "reaches into the standard library's private call queue or manager thread: "
BETTER = "better on purpose: "

#: pattern -> (reason, the first version all of whose releases have the test).
SKIPS: dict[str, tuple[str, tuple[int, int]]] = {
    "ProcessPool*ShutdownTest.test_del_shutdown": (
        PRIVATE + "joins executor._call_queue's feeder thread",
        (3, 10),
    ),
    "ProcessPool*ShutdownTest.test_shutdown_no_wait": (
        PRIVATE + "joins executor._call_queue's feeder thread",
        (3, 10),
    ),
    "ProcessPool*ExecutorTest.test_python_finalization_error": (
        PRIVATE + "lets the call queue's feeder thread fail to start; parallax has none",
        (3, 13),
    ),
    "ProcessPool*ExecutorTest.test_killed_child": (
        BETTER
        + "a killed worker fails the call that it was running with BrokenProcessPool, and the pool "
        "lives on; the test wants later calls to fail too. "
        "tests/contract/test_process_pool_stdlib.py shows what holds instead",
        (3, 10),
    ),
    "ProcessPool*ExecutorTest.test_broken_process_pool_traceback": (
        BETTER
        + "as above: the killed worker was running one of three calls, and two wait on. That no "
        "two calls share an error is test_each_lost_call_has_an_error_of_its_own there",
        (3, 15),
    ),
    "ProcessPool*ExecutorTest.test_traceback_when_child_process_terminates_abruptly": (
        BETTER + "the error itself has process id, exit code or signal and likely cause; "
        "the test wants the exit code as a text in a private class of cause",
        (3, 15),
    ),
    "ProcessPool*ExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967": (
        BETTER
        + "the calls of a dropped executor run, also where workers are replaced; the test has "
        "them fail with BrokenProcessPool",
        (3, 15),
    ),
    "ProcessPool*ExecutorTest.test_shutdown_no_wait_max_tasks_gh119592": (
        BETTER + "as above, of an executor that was shut down before it was dropped",
        (3, 15),
    ),
    "ProcessPool*ExecutorTest.test_force_shutdown_during_max_tasks_worker_exit": (
        PRIVATE + "sets executor._force_shutting_down and sees what the manager thread does",
        (3, 15),
    ),
    "ProcessPool*ExecutorTest.test_failed_worker_replacement_breaks_pool": (
        PRIVATE + "replaces concurrent.futures.process._spawn_worker; "
        "tests/faults/test_start.py shows what becomes of workers that cannot be started",
        (3, 15),
    ),
    "ProcessPool*ExecutorTest.test_terminate_workers": (
        PRIVATE + "replaces executor._force_shutdown and sees it called",
        (3, 14),
    ),
    "ProcessPool*ExecutorTest.test_kill_workers": (
        PRIVATE + "replaces executor._force_shutdown and sees it called",
        (3, 14),
    ),
    "ProcessPool*ExecutorTest.test_force_shutdown_workers": (
        PRIVATE + "replaces the methods of the Process objects in executor._processes; "
        "tests/contract/test_process_pool_stdlib.py shows that the workers end",
        (3, 14),
    ),
}
