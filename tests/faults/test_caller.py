"""What may befall the caller's process: no descriptors, no processes, a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="POSIX limits and forks"),
    pytest.mark.sampled(2),
]

METHODS = ("snapshot", "zygote", "spawn")


@pytest.fixture(params=METHODS)
def method(request):
    """Each way of starting worker processes."""
    if request.param in {"snapshot", "zygote"} and not sys.platform.startswith("linux"):
        pytest.skip("for Linux")
    return request.param


def child(code, timeout=20):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.stdout, done.stderr


def test_few_descriptors(method):
    """With no descriptors left: an error that says so or fewer workers, never a hang."""
    out, err = child(
        f"""
        import resource, os
        from parallax import parallel_map, WorkerStartError, options
        parallel_map(abs, [1])
        files = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        try:
            while True: files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: pass
        for left in range(0, 14):
            with options(start_method={method!r}):
                try:
                    got = parallel_map(abs, range(20), backend="processes", max_workers=3)
                    assert got == list(range(20))
                except (WorkerStartError, OSError) as error:
                    pass
                assert parallel_map(abs, range(-9, 0)) == list(range(9, 0, -1))
            os.close(files.pop())
        for fd in files: os.close(fd)
        print(list(parallel_map(abs, range(4), backend="processes")))
        """
    )
    assert (out, err) == ("[0, 1, 2, 3]\n", "")


@pytest.mark.parametrize("method", METHODS[1:], indirect=True)  # a fork executes nothing
def test_no_processes_allowed(method):
    """Where the system refuses processes, ``auto`` works on and ``processes`` says why."""
    out, err = child(
        f"""
        import subprocess, time
        from parallax import parallel_map, WorkerStartError, options
        def refuse(*a, **k): raise BlockingIOError(11, "Resource temporarily unavailable")
        subprocess.Popen = refuse
        def work(x):
            t = 0
            for i in range(300_000): t += i
            return x
        with options(start_method={method!r}):
            assert parallel_map(work, range(20)) == list(range(20))
            try: parallel_map(work, range(20), backend="processes")
            except WorkerStartError as error: print(error)
        """
    )
    assert "Resource temporarily unavailable" in out, err
    assert "threads" in out
    assert err == ""


def test_fork_after_use(method):
    """A forked copy of the program may use workers of its own; the parent goes on."""
    out, err = child(
        f"""
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from parallax import parallel_map, options
        with options(start_method={method!r}, backend="processes"):
            mine = set(parallel_map(lambda x: os.getpid(), range(8)))
            pid = os.fork()
            if pid == 0:
                got = parallel_map(lambda x: os.getpid(), range(8))
                assert not set(got) & mine
                assert parallel_map(abs, range(5)) == [0, 1, 2, 3, 4]
                sys.exit(7)
            _, status = os.waitpid(pid, 0)
            again = set(parallel_map(lambda x: os.getpid(), range(8)))
            print(os.waitstatus_to_exitcode(status), bool(again & mine))
        """
    )
    warm = method != "snapshot"
    assert (out, err) == (f"7 {warm}\n", "")


def test_multiprocessing_child_of_the_program():
    """A child that ``multiprocessing`` forked uses parallax and ends cleanly."""
    out, err = child(
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from parallax import parallel_map
        assert parallel_map(abs, range(5), backend="processes") == [0, 1, 2, 3, 4]
        def use(): print(parallel_map(abs, range(5), backend="processes"), flush=True)
        child = multiprocessing.get_context("fork").Process(target=use)
        child.start(); child.join(10)
        print(child.exitcode, parallel_map(abs, range(3), backend="processes"))
        """
    )
    assert (out, err) == ("[0, 1, 2, 3, 4]\n0 [0, 1, 2]\n", "")
