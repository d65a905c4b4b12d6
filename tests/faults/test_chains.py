"""Modules that make pools while they are imported: no worker of those makes pools of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: The first lines of each module: it notes who imports it.
NOTE = """
import os
with open(os.environ["NOTED"], "a") as noted:
    noted.write(f"{os.getpid()}\\n")
import parallax
def f(x):
    return x * x
"""

#: What modules do at their top level, with the results of those that have any.
MODULES = {
    "pool": """
pool = parallax.ProcessPoolExecutor(2)
results = [pool.submit(f, x).result() for x in range(3)]
""",
    "map_of_pool": """
with parallax.ProcessPoolExecutor(2) as pool:
    results = list(pool.map(f, range(3)))
""",
    "initializer": """
def first(value):
    global STATE
    STATE = value
def stated(x):
    return f(x) + STATE
with parallax.ProcessPoolExecutor(2, initializer=first, initargs=(0,)) as pool:
    results = list(pool.map(stated, range(3)))
STATE = 0
""",
    "executor": """
pool = parallax.Executor(2, backend="processes")
results = [pool.submit(f, x).result() for x in range(3)]
""",
    "spawn": """
import multiprocessing
pool = parallax.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
results = [pool.submit(f, x).result() for x in range(3)]
""",
    "auto": """
pool = parallax.Executor(2)
results = [call.result() for call in [pool.submit(f, x) for x in range(3)]]
""",
    "call": """
results = list(parallax.parallel_map(f, range(3), backend="processes", max_workers=2))
""",
    "limited": """
results = list(parallax.parallel_map(f, range(3), item_timeout=60, max_workers=2))
""",
    "stream": """
results = list(parallax.parallel_imap(f, range(3), backend="processes", max_workers=2))
""",
    "unpickled": """
class Item:
    def __init__(self, x):
        self.x = x
    def __reduce__(self):
        return make, (self.x,)
def make(x):
    with parallax.ProcessPoolExecutor(2) as pool:
        return pool.submit(f, x).result()
results = [make(x) for x in range(3)]
""",
}

PROGRAM = """
import importlib, os, sys
from parallax import ProcessPoolExecutor, options, parallel_map
method, *names = sys.argv[1:]
def imports():
    with open(os.environ["NOTED"]) as noted:
        return len(noted.readlines())
if __name__ == "__main__":
    with options(start_method=method, max_workers=2):
        for name in names:
            before = imports() if os.path.exists(os.environ["NOTED"]) else 0
            module = importlib.import_module(name)
            assert module.results == [0, 1, 4], (name, module.results)
            work = getattr(module, "stated", module.f)
            found = list(parallel_map(work, range(4), backend="processes"))
            assert found == [0, 1, 4, 9], (name, found)
            if name == "unpickled":
                items = [module.Item(x) for x in range(4)]
                assert list(parallel_map(int, items, backend="processes")) == [0, 1, 4, 9]
            if name == "pool":
                with ProcessPoolExecutor(2) as pool:
                    assert list(pool.map(module.f, range(4))) == [0, 1, 4, 9]
            # The program, workers of the pools of the module, and two of each of the calls above.
            assert imports() - before <= 9, (name, imports() - before)
    print("done")
"""


@pytest.mark.parametrize("method", ["zygote", pytest.param("spawn", marks=pytest.mark.full)])
def test_no_chain_of_pools(tmp_path, method):
    """Each module is imported by the workers of its own pool and of the calls, and no others."""
    if method == "zygote" and sys.platform != "linux":
        pytest.skip("there is no zygote")
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(NOTE + text)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), method, *MODULES],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NOTED": str(tmp_path / "noted")},
    )
    assert done.stdout == "done\n", done.stdout + done.stderr


MP_CHILD = """
import dataclasses, functools, multiprocessing, sys
from parallax import ProcessPoolExecutor, options, parallel_map
SETTING = 1
class Plain:
    def __init__(self, x):
        self.x = x
    def plus(self, y):
        return self.x + y
    def __eq__(self, other):
        return type(other) is type(self) and self.x == other.x
@dataclasses.dataclass
class Data:
    x: int
class OwnError(Exception):
    pass
def reads(x):
    return x + SETTING
@functools.lru_cache
def cached(x):
    return 3 * x
def fails(x):
    raise OwnError(x)
def child(queue):
    global SETTING
    SETTING = 5
    def run(work, *items):
        return list(parallel_map(work, *items, backend="processes", max_workers=2))
    assert run(reads, range(4)) == [5, 6, 7, 8]
    assert run(Plain, range(3)) == [Plain(x) for x in range(3)]
    assert run(Data, range(3)) == [Data(x) for x in range(3)]
    assert run(cached, range(4)) == [0, 3, 6, 9]
    assert run(Plain(3).plus, range(4)) == [3, 4, 5, 6]
    assert run(Plain.plus, [Plain(1)] * 4, range(4)) == [1, 2, 3, 4]
    assert run(functools.partial(reads), range(4)) == [5, 6, 7, 8]
    assert run(lambda x: reads(x), range(4)) == [5, 6, 7, 8]
    assert run(isinstance, [Plain(1), Data(1)], [Plain, Plain]) == [True, False]
    found = parallel_map(fails, range(2), backend="processes", on_error="return")
    assert [type(each) for each in found] == [OwnError] * 2
    with ProcessPoolExecutor(2) as pool:
        assert [pool.submit(reads, x).result() for x in range(3)] == [5, 6, 7]
        assert pool.submit(Plain, 1).result() == Plain(1)
    queue.put("done")
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        process.join()
        print(queue.get(timeout=1) if process.exitcode == 0 else process.exitcode)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server")
def test_main_script_in_children_of_multiprocessing(tmp_path):
    """Functions and classes of ``__mp_main__`` travel, and come back as what they were."""
    script = tmp_path / "program.py"
    script.write_text(MP_CHILD)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\ndone\n", done.stdout + done.stderr
