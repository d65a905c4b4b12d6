"""Executors in forked copies of the program, and at its end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.sampled(2)

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")

KINDS = ("ThreadPoolExecutor", "ProcessPoolExecutor", "Executor")


def script(tmp_path, kind, body):
    """Run a program that has an executor ``ex`` of that kind; the lines that it printed."""
    path = tmp_path / "script.py"
    head = f"""
        import atexit, os, sys, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
        from parallax import {kind} as Kind

        def spin(x):
            end = time.perf_counter() + 0.003
            while time.perf_counter() < end:
                pass
            return x

        def say(x):
            spin(x)
            os.write(1, f"{{x}}\\n".encode())
            return x
    """
    path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "end",
    ["", "ex.shutdown(wait=False)", "del ex, futures"],
    ids=["nothing", "shutdown", "del"],
)
def test_pending_calls_are_finished_at_exit(tmp_path, kind, end):
    """A program that falls off its end loses nothing."""
    body = f"""
        ex = Kind(2)
        futures = [ex.submit(say, n) for n in range(60)]
        {end}
    """
    assert sorted(map(int, script(tmp_path, kind, body))) == list(range(60))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["results = ", ""])
def test_maps_are_worked_through_at_exit(tmp_path, kind, name):
    """Whether somebody has the iterator or not."""
    body = f"""
        ex = Kind(2)
        {name}ex.map(say, range(60))
    """
    assert sorted(map(int, script(tmp_path, kind, body))) == list(range(60))


@pytest.mark.parametrize("kind", KINDS)
def test_submitting_at_exit(tmp_path, kind):
    """Refused, with old and new executors."""
    body = """
        ex = Kind(2)
        future = ex.submit(spin, 1)
        def late():
            for executor in (ex, Kind(1)):
                try:
                    executor.submit(spin, 2)
                except RuntimeError as error:
                    print("refused", future.result(), flush=True)
        atexit.register(late)
    """
    assert script(tmp_path, kind, body) == ["refused 1"] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_callbacks_at_exit(tmp_path, kind):
    """Who waits for a result gets it."""
    body = """
        ex = Kind(1)
        futures = [ex.submit(spin, n) for n in range(20)]
        futures[-1].add_done_callback(lambda f: os.write(1, f"called {f.result()}\\n".encode()))
        def wait():
            os.write(1, f"waited {futures[-1].result()}\\n".encode())
        threading.Thread(target=wait).start()
    """
    assert sorted(script(tmp_path, kind, body)) == ["called 19", "waited 19"]


@pytest.mark.sampled(3)
@posix
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_forked_child(tmp_path, kind, workers):
    """Its parent's pending calls end with an error there; each call runs once all the same."""
    body = f"""
        ex = Kind({workers})
        for f in [ex.submit(spin, n) for n in range(20)]:
            f.result()
        told = []
        go = __file__ + ".go"
        def held(x):
            # However long the program takes to fork, there is something left.
            while x < {workers} and not os.path.exists(go):
                time.sleep(0.001)
            return say(x)
        futures = [ex.submit(held, n) for n in range(30)]
        for f in futures:
            f.add_done_callback(lambda f: told.append(os.getpid()))
        before = len(told)
        pid = os.fork()
        if pid == 0:
            failed = 0
            for f in futures:
                if f.running():
                    continue  # in a thread that does not exist here
                try:
                    f.result(20)
                except Exception as error:
                    failed += "process that forked" in str(error)
            assert failed > 10, failed
            assert os.getpid() not in told, told
            try:
                assert ex.submit(spin, 3).result(20) == 3
            except RuntimeError as error:
                assert "process that forked" in str(error)
            own = Kind(2)
            assert [f.result(20) for f in [own.submit(spin, n) for n in range(9)]] == list(range(9))
            list(own.map(spin, range(50)))
            own.shutdown()
            ex.shutdown()
            del ex
            sys.exit(0)
        open(go, "w").close()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        futures += [ex.submit(say, n) for n in range(30, 40)]
        assert [f.result(20) for f in futures] == list(range(40))
        ex.shutdown()
        assert len(told) == 30, told
        os.write(1, f"{{status}}\\n".encode())
    """
    out = script(tmp_path, kind, body)
    assert out[-1] == "0"
    assert sorted(map(int, out[:-1])) == list(range(40))


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_and_a_map(tmp_path, kind):
    """What the map has left is submitted by the parent only."""
    body = """
        ex = Kind(2)
        results = ex.map(say, range(60))
        pid = os.fork()
        if pid == 0:
            del results
            del ex
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert list(results) == list(range(60))
        ex.shutdown()
        os.write(1, f"{status}\\n".encode())
    """
    out = script(tmp_path, kind, body)
    assert out[-1] == "0"
    assert sorted(map(int, out[:-1])) == list(range(60))
