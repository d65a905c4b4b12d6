"""Workers that cannot start, and what breaks the helper that forks them: tables as data.

``backend="processes"`` says why, ``auto`` goes on in the caller's process with a note in its
report, and neither ever hangs. Each case is a program of its own, because limits and interpreters
are those of a whole process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import textwrap

import jobs
import psutil
import pytest

from parallax import WorkerDiedError, options, parallel_map
from parallax._backends.processes.parent.pool import Pool
from parallax._core.cores import gil_enabled

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="POSIX limits and signals"),
    pytest.mark.sampled(2),
]

METHODS = ("snapshot", "zygote", "spawn")


@pytest.fixture(params=METHODS)
def method(request):
    """Each way of starting worker processes."""
    if request.param in {"snapshot", "zygote"} and not sys.platform.startswith("linux"):
        pytest.skip("for Linux")
    return request.param


def program(code, folder):
    """Run a program with that folder on its path; what it printed, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        cwd=folder,
    )
    return done.stdout, done.stderr


# -- no worker can be had --------------------------------------------------------------------------

#: What keeps workers from starting: (what the program does, what a fresh interpreter of its does
#: before anything else, words of the error). The last runs as ``sitecustomize``.
FAULTS = {
    "interpreter is gone": ("sys.executable = '/nonexistent/python'", "", "No such file"),
    "interpreter is not executable": ("sys.executable = os.__file__", "", "Permission denied"),
    "there is no interpreter": ("sys.executable = ''", "", "no Python interpreter of its own"),
    "interpreter is another program": ("sys.executable = '/bin/false'", "", "ended"),
    "worker exits at its start": ("", "os._exit(7)", "exited with status 7"),
    "worker crashes at its start": ("", "os.kill(os.getpid(), 11)", "SIGSEGV"),
    "worker has no memory": (
        "",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))",
        "ended",
    ),
    "worker has no descriptors": (
        "",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
        "ended",
    ),
    "no process is allowed": (
        "subprocess.Popen = refuse",
        "",
        "Resource temporarily unavailable",
    ),
}


@pytest.mark.sampled(8)
@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("method", METHODS[1:], indirect=True)  # a fork executes nothing
def test_no_worker_can_start(tmp_path, method, name):
    """An error that says why, at once; ``auto`` goes on by itself and notes why."""
    if sys.platform == "darwin" and "memory" in name:
        pytest.skip("the system does not keep that limit")
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nif os.environ.get('IN_A_WORKER'):\n    {FAULTS[name][1] or 'pass'}\n"
    )
    out, err = program(
        f"""
        import os, subprocess, sys
        from parallax import parallel_map, WorkerStartError, options
        parallel_map(abs, [1], backend="serial")
        os.environ["IN_A_WORKER"] = "1"
        os.environ["PYTHONPATH"] = os.getcwd()
        def refuse(*args, **kwargs):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        exec({FAULTS[name][0]!r})
        def work(x):
            total = 0
            for i in range(300_000): total += i
            return x
        with options(start_method={method!r}):
            got = parallel_map(work, range(20))
            assert got == list(range(20))
            assert got.report.workers_lost == 0
            for _ in range(2):
                try: parallel_map(work, range(20), backend="processes")
                except WorkerStartError as error: print(error)
        """,
        tmp_path,
    )
    first, second = out.splitlines()
    for line in (first, second):
        assert FAULTS[name][2] in line
        assert "no worker process could be started" in line
        assert line.count("could be started") == 1
        assert "callable" not in line
    assert err.count("parallax: ") <= 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:], indirect=True)  # a fork executes nothing
def test_worker_that_hangs_at_its_start(tmp_path, method):
    """It is given up after a time, here a short one, and the error says so."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\nif os.environ.get('IN_A_WORKER'): time.sleep(60)\n"
    )
    out, err = program(
        f"""
        import os
        from parallax import parallel_map, WorkerStartError, options
        from parallax._backends.processes.start import starter as start
        start.HELLO_TIMEOUT_S = start.IMPORT_TIMEOUT_S = 0.4
        os.environ["IN_A_WORKER"] = "1"
        os.environ["PYTHONPATH"] = os.getcwd()
        with options(start_method={method!r}, backend="processes"):
            try: parallel_map(abs, range(9), max_workers=2)
            except WorkerStartError as error: print(error)
        """,
        tmp_path,
    )
    assert "did not come up in time" in out
    assert err == ""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:], indirect=True)  # a fork executes nothing
def test_auto_notes_why_it_stayed(tmp_path, method):
    """Work that pays on processes is done here when there are none, and the report says why."""
    out, err = program(
        f"""
        import sys
        from parallax import parallel_map, options
        sys.executable = "/nonexistent/python"
        def work(x):
            total = 0
            for i in range(300_000): total += i
            return x
        for _ in range(20):  # while other programs have the cores, nobody asks for processes
            with options(start_method={method!r}):
                got = parallel_map(work, range(40))
            if got.report.notes: break
        print(got == list(range(40)), got.report.route in ("loop", "threads"))
        print(*got.report.notes)
        """,
        tmp_path,
    )
    lines = out.splitlines()
    assert (lines[0], err) == ("True True", "")
    # Without a GIL threads are as good, and nobody asks for processes.
    stayed = "there is one core" in out or not gil_enabled()
    assert "No such file" in lines[1] or stayed


@pytest.mark.full
def test_each_number_of_descriptors(tmp_path, method):
    """With so many left, whatever comes first to lack one: it works, or it says what is missing."""
    out, err = program(
        f"""
        import os, resource, sys
        from parallax import parallel_map, WorkerStartError, options
        parallel_map(abs, range(4), backend="processes")  # what is loaded late is loaded now
        from parallax._backends.processes.parent.warm_pool import shutdown_warm_pool
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        failed = worked = 0
        for left in range(0, 45, 2):
            shutdown_warm_pool()
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, 4096))
            with options(start_method={method!r}):
                assert parallel_map(abs, range(-9, 0)) == list(range(9, 0, -1))
                try: got = parallel_map(abs, range(20), backend="processes", max_workers=3)
                except WorkerStartError as error:
                    failed += 1
                    told = ("Too many open files", "more files may be open", "ended")
                    assert any(words in str(error) for words in told), error
                else:
                    worked += 1
                    assert got == list(range(20))
        print(failed > 2, worked > 2)
        """,
        tmp_path,
    )
    assert out == "True True\n", err


# -- what breaks the zygote ------------------------------------------------------------------------

#: What a module does where it is imported ahead: (code, words of the logged line).
MODULES = {
    "exits": ("os._exit(3)", "importing breaks ahead broke it: it exited with status 3"),
    "crashes": ("os.kill(os.getpid(), 11)", "importing breaks ahead broke it: ended by SIGSEGV"),
    "closes descriptors": ("os.closerange(3, 100)", "importing breaks ahead broke it"),
    "hangs": ("threading.Event().wait()", "importing breaks ahead took too long"),
    "starts a thread": (
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "importing breaks ahead started threads",
    ),
    "raises": ("raise SystemExit(4)", None),
}


@pytest.mark.sampled(4)
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the zygote is for Linux")
@pytest.mark.parametrize("name", MODULES)
def test_module_that_breaks_the_zygote(tmp_path, name):
    """Workers start without it, with one line that names it; twice blamed, it is left out.

    What it did not break is still imported ahead.
    """
    (tmp_path / "good.py").write_text("import os\nNUMBER = os.getpid()\n")
    (tmp_path / "breaks.py").write_text(
        textwrap.dedent(
            f"""
            import os, sys, threading
            if "parallax._backends.processes.start.zygote" in sys.modules:
                if os.getppid() == int(os.environ["PROGRAM"]):  # not in a worker
                    {MODULES[name][0]}
            NUMBER = 1
            """
        )
    )
    out, err = program(
        """
        import os, sys
        os.environ["PROGRAM"] = str(os.getpid())
        import good, breaks
        from parallax import parallel_map, options
        from parallax._backends.processes.start import spawn as execute
        from parallax._backends.processes.parent import warm_pool as pool
        from parallax._backends.processes.start import starter as start
        paths = (*execute._install_paths(), os.getcwd())
        execute._install_paths = lambda: paths
        start.IMPORT_TIMEOUT_S = 0.6
        def work(x):
            return x + breaks.NUMBER, good.NUMBER != os.getpid()
        for _ in range(4):
            got = parallel_map(work, range(20), backend="processes", max_workers=2)
            assert [x for x, _ in got] == list(range(1, 21))
            print(all(ahead for _, ahead in got), got.report.workers_lost)
            pool.shutdown_warm_pool()
        """,
        tmp_path,
    )
    assert out == "True 0\n" * 4, err
    logged = [line for line in err.splitlines() if line.startswith("parallax: ")]
    words = MODULES[name][1]
    if words is None:
        assert err == ""
    else:
        assert len(logged) == (1 if name == "starts a thread" else 2)
        assert all(words in line for line in logged)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the zygote is for Linux")
@pytest.mark.parametrize(
    ("times", "words"), [(1, "True"), (99, "fork: [Errno 11] Resource temporarily unavailable")]
)
def test_zygote_that_may_not_fork(tmp_path, times, words):
    """A fork that is refused once is tried again; one that always is, is an error that says so."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import os, sys
            if os.environ.get("PROGRAM") and "zygote" in " ".join(sys.orig_argv):
                fork, left = os.fork, [{times}]
                def refuse():
                    left[0] -= 1
                    if left[0] < 0: return fork()
                    raise BlockingIOError(11, "Resource temporarily unavailable")
                os.fork = refuse
            """
        )
    )
    out, err = program(
        """
        import os
        os.environ["PROGRAM"] = "1"
        os.environ["PYTHONPATH"] = os.getcwd()
        from parallax import parallel_map, WorkerStartError
        try: print(parallel_map(abs, range(9), backend="processes", max_workers=2) == [*range(9)])
        except WorkerStartError as error: print(error)
        """,
        tmp_path,
    )
    assert words in out
    assert err == ""


@pytest.mark.parametrize("method", METHODS[1:], indirect=True)  # forks are not kept
def test_idle_workers_that_left_unseen(method, monkeypatch, cold_pool):
    """Warm workers that are gone by the time that they are spoken to are replaced."""
    with options(start_method=method, backend="processes"):
        pids = set(parallel_map(jobs.pid_of, range(20)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        monkeypatch.setattr(Pool, "_weed", lambda self: None)
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).wait(timeout=5)
        got = parallel_map(jobs.pid_of, range(20))
        assert not set(got) & pids
        assert got.report.workers_lost == 0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the zygote is for Linux")
def test_zygote_that_never_works(tmp_path):
    """Workers are executed instead, with one line that says so."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if os.environ.get('PROGRAM') and 'start.zygote' in ' '.join(sys.orig_argv): os._exit(5)\n"
    )
    out, err = program(
        """
        import os
        os.environ["PROGRAM"] = "1"
        os.environ["PYTHONPATH"] = os.getcwd()
        from parallax import parallel_map
        for _ in range(2):
            print(parallel_map(abs, range(5), backend="processes", max_workers=3))
        """,
        tmp_path,
    )
    assert out == "[0, 1, 2, 3, 4]\n" * 2
    assert err == (
        "parallax: the process that forks workers ended: it exited with status 5; "
        "starting workers another way\n"
    )


# -- frames that are none --------------------------------------------------------------------------

GARBAGE = {
    "wrong header": b"hello, this is not a frame at all",
    "half a header": b"plx",
    "a length beyond reason": b"plx1" + b"\x42\0\0\0" + b"\0" * 8 + b"\xff" * 8,
    "a length beyond memory": b"plx1" + b"\x42\0\0\0" + b"\0" * 8 + b"\0" * 5 + b"\x20\0\0",
    "buffers beyond reason": b"plx1" + b"\x42\0\x02\0" + b"\0" * 16 + b"\xff" * 16,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("chunksize", [1, None])
@pytest.mark.parametrize("method", METHODS[1:], indirect=True)  # other tests leave threads
def test_garbage_on_a_workers_socket(method, garbage, chunksize):
    """That worker is ended and its item fails with the reason; the others are not affected."""
    work = functools.partial(jobs.garbles_at, 7, GARBAGE[garbage])
    with options(start_method=method, backend="processes"):
        results = parallel_map(work, range(24), on_error="return", chunksize=chunksize)
        error = results[7]
        assert type(error) is WorkerDiedError
        assert error.index == 7
        assert "what it sent cannot be read" in str(error)
        assert error.detail in str(error)
        assert [v for i, v in enumerate(results) if i != 7] == [x for x in range(24) if x != 7]
        assert results.report.workers_lost >= 1
        assert parallel_map(jobs.square, range(5)) == [0, 1, 4, 9, 16]
