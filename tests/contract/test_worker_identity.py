"""Who a worker is, for code that asks ``multiprocessing`` whether it runs in one.

The answers are those that a worker of the standard library's pool gives.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing import connection

import pytest
from helpers.backends import OUTSIDE
from jobs import identity as jobs

from parallax import ProcessPoolExecutor, parallel_map

pytestmark = [
    pytest.mark.cold_pool,
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.sampled(2),
]

METHODS = [None, *multiprocessing.get_all_start_methods()]


@pytest.fixture(params=METHODS)
def pool(request):
    """Two workers of an executor, by every way to start them."""
    context = None if request.param is None else multiprocessing.get_context(request.param)
    with ProcessPoolExecutor(2, context) as executor:
        yield executor


def check(answers):
    """What must hold of the answers of ``who`` from several items."""
    answers = [each for each in answers if each["pid"][0] != os.getpid()]
    assert answers
    key = bytes(multiprocessing.current_process().authkey)
    for each in answers:
        (number,) = each["numbers"]
        assert number > 0
        assert each["name"] == each["logged"] == f"ParallaxWorker-{number}"
        assert len(set(each["pid"])) == 1
        assert each["daemon"] is False
        assert each["alive"] == (True, None)
        assert each["parent"] == ("MainProcess", os.getpid(), True)
        assert each["key"] == key
    processes = {each["pid"][0] for each in answers}
    assert len({each["numbers"] for each in answers}) == len(processes)
    return answers


@pytest.mark.variants(*OUTSIDE)
def test_a_worker_of_a_call_is_a_child_of_the_program(backend):
    """By its name, numbers and parent; the caller's own thread may run items as well."""
    check(parallel_map(jobs.who, range(8), backend=backend, max_workers=2))


def test_a_worker_of_an_executor_is_a_child_of_the_program(pool):
    """And the executor's table of processes has the same names."""
    seen = pool.map(jobs.who, range(4))
    next(seen)
    names = {each.pid: each.name for each in pool._processes.values()}
    for each in check(seen):
        assert names[each["pid"][0]] == each["name"]


def test_the_same_is_told_as_by_the_standard_library(pool):
    """Except for the class in the names."""
    with concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    ) as standard:
        theirs = standard.submit(jobs.who, 0).result(30)
    ours = pool.submit(jobs.who, 0).result(30)
    varying = {"name", "numbers", "pid", "logged"}
    assert {k: v for k, v in ours.items() if k not in varying} == {
        k: v for k, v in theirs.items() if k not in varying
    }
    assert theirs["name"].startswith("SpawnProcess-")
    assert theirs["numbers"] != ours["numbers"]


def test_numbers_are_those_of_the_processes_of_the_program():
    """No process of the program has the number of a worker."""
    before = multiprocessing.Process()
    with ProcessPoolExecutor(1) as executor:
        worker = executor.submit(jobs.who, 0).result(30)
    after = multiprocessing.Process()
    assert before._identity < worker["numbers"] < after._identity


@pytest.mark.variants(*OUTSIDE)
def test_the_parent_can_be_waited_for(backend):
    """By ``join``, ``is_alive`` and the sentinel."""
    got = parallel_map(jobs.waits_for_parent, range(4), backend=backend, item_timeout=30)
    assert got == [(True, [], True)] * 4


def test_a_connection_to_the_program(pool):
    """Both ends have the same key."""
    key = bytes(multiprocessing.current_process().authkey)
    with connection.Listener(("localhost", 0), authkey=key) as listener:
        future = pool.submit(jobs.connects, listener.address)
        with listener.accept() as accepted:
            pid = accepted.recv()
            accepted.send("welcome")
        assert future.result(30) == "welcome"
        assert pid != os.getpid()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_children_of_a_worker(pool):
    """They may be started, count from 1 below the numbers of the worker, and know their parent."""
    found, name, numbers, pid = pool.submit(jobs.has_children, 0).result(30)
    for index, child in enumerate(found, 1):
        label = ":".join(map(str, (*numbers, index)))
        assert child == (f"ForkProcess-{label}", (*numbers, index), name, pid, True)


def test_the_start_method_that_the_program_has_set(monkeypatch):
    """Warm workers learn of it as well."""
    context = multiprocessing.context._default_context
    with ProcessPoolExecutor(1) as executor:
        for method in (None, "spawn", None):
            monkeypatch.setattr(
                context, "_actual_context", method and multiprocessing.get_context(method)
            )
            assert executor.submit(jobs.start_method, 0).result(30) == method


# -- programs that do not use multiprocessing ------------------------------------------------------


def run(program, **kwargs):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **kwargs,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


LAZY = """
import os, sys
from parallax import options, parallel_map

def loaded(_):
    return [name for name in sys.modules if name.startswith("multiprocessing")]

def numbers(statement):
    space = {}
    exec(statement, space)
    import multiprocessing
    module = multiprocessing.process
    assert module.__loader__ is module.__spec__.loader
    assert "parallax" not in type(module.__loader__).__module__
    return space["me"]._identity, multiprocessing.parent_process().pid == program

import_all = "import multiprocessing; me = multiprocessing.current_process()"
import_one = "from multiprocessing.process import current_process as c; me = c()"
import_two = "import importlib; me = importlib.import_module('multiprocessing').current_process()"
program = os.getpid()

def logs(text):
    import io, logging
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(processName)s"))
    log = logging.getLogger("mine")
    log.addHandler(handler)
    log.error(text)
    assert "multiprocessing" not in sys.modules
    return stream.getvalue()

with options(start_method=METHOD, backend="processes", item_timeout=30, max_workers=1):
    print(parallel_map(loaded, [0, 0]))
    print(parallel_map(logs, ["a"]))
    print(parallel_map(numbers, [import_all]))
with options(start_method=METHOD, backend="processes", item_timeout=30, max_tasks_per_child=1):
    print(parallel_map(numbers, [import_one, import_two]))
"""


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_no_worker_loads_multiprocessing_for_that(method):
    """It takes 10 ms. A worker is told who it is when it imports it, by whatever statement."""
    if method == "zygote" and sys.platform != "linux":
        pytest.skip("no zygote")
    first, logged, second, others = run(f"METHOD = {method!r}\n{LAZY}").splitlines()
    assert (first, logged) == ("[[], []]", "['ParallaxWorker-1\\n']")
    assert second == "[((1,), True)]"
    (one, mine), (two, too) = eval(others)
    assert (mine, too) == (True, True)
    assert one != two


@pytest.mark.skipif(sys.platform != "linux", reason="the zygote")
def test_modules_that_ask_while_they_are_imported_ahead(tmp_path):
    """They decide as in a child, and what they ask for later is the worker's."""
    (tmp_path / "asks_early.py").write_text(
        "import multiprocessing\n"
        "NAME = multiprocessing.current_process().name\n"
        "PARENT = getattr(multiprocessing.parent_process(), 'pid', None)\n"
    )
    got = run(
        f"""
        import os, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import asks_early
        from parallax import parallel_map
        from parallax._backends.processes.start import spawn
        spawn._install_paths = lambda: ({str(tmp_path)!r},)

        def work(x):
            early = vars(asks_early)  # the caller's values of globals that are read are sent along
            now = asks_early.multiprocessing.current_process().name
            return early["NAME"], early["PARENT"] == program, now

        program = os.getpid()
        print(asks_early.NAME, parallel_map(work, [0], backend="processes", item_timeout=30))
        """
    )
    assert got == "MainProcess [('ParallaxZygote-0', True, 'ParallaxWorker-1')]\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.parametrize("method", ["zygote", "spawn", "fork"])
def test_the_end_of_the_parent_is_noticed(method, tmp_path):
    """By a process that an item has left behind, which nobody ends."""
    told = tmp_path / "told"
    program = f"""
        import multiprocessing, os, sys, time, warnings
        from parallax import ProcessPoolExecutor, options
        def leaves_a_fork(path):
            parent = multiprocessing.parent_process()
            assert parent.is_alive()
            if os.fork() == 0:
                os.setsid()
                parent.join()
                with open(path + ".new", "w") as file:
                    file.write(str((parent.pid, parent.is_alive())))
                os.rename(path + ".new", path)
                os._exit(0)
        if __name__ == "__main__":
            method = {method!r}
            with options(start_method="auto" if method == "fork" else method):
                context = None if method == "zygote" else multiprocessing.get_context(method)
                executor = ProcessPoolExecutor(1, context)
                executor.submit(leaves_a_fork, {str(told)!r}).result(30)
            print(os.getpid(), flush=True)
            time.sleep(60)
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as process:
        pid = int(process.stdout.readline())
        assert not told.exists()
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert told.read_text() == str((pid, False))
