"""Objects nested so deeply that pickling them would end the program, in programs of their own."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys

import pytest

from parallax._transport.nesting_depth import MAX_NESTED, check_nesting

PROGRAM = """
import functools, os, sys, threading, time
from parallax import Executor, ProcessPoolExecutor, SerializationError, parallel_map

sys.setrecursionlimit(10**6)

class Node:
    def __init__(self, below): self.below = below

WAYS = {
    "tuple": lambda below: (1, below), "list": lambda below: [below],
    "dict": lambda below: {"below": below}, "object": Node,
    "partial": lambda below: functools.partial(print, below),
}

def deep(way):
    node = None
    for _ in range(60_000):
        node = WAYS[way](node)
    return node

def work():
    end = time.thread_time() + 0.003
    while time.thread_time() < end:
        pass

def capturing(node):
    def f(x):
        work()
        return x if node is not None else -1
    return f

def first(item):
    work()
    return item[0]

def made(x):
    work()
    return deep("tuple") if x == 25 else x

def main():
    nodes = [deep(way) for way in WAYS]
    for node, second_thread in zip(nodes, [False, True, False, True, True]):
        end = threading.Event()
        if second_thread:
            threading.Thread(target=end.wait).start()
        assert parallel_map(capturing(node), range(20), max_workers=2) == list(range(20))
        pairs = [(x, node) for x in range(20)]
        assert parallel_map(first, pairs, max_workers=2) == list(range(20))
        end.set()
        for fn, items in [(capturing(node), range(3)), (first, pairs[:3])][second_thread:][:1]:
            try:
                parallel_map(fn, items, backend="processes", max_workers=2)
            except SerializationError as error:
                assert "recursion" in str(error).lower(), error
            else:
                raise AssertionError("it was pickled")
    with Executor(2) as executor:
        assert list(executor.map(first, [(x, nodes[0]) for x in range(4)])) == list(range(4))
    with ProcessPoolExecutor(1) as executor:
        assert executor.submit(work).exception() is None
        assert isinstance(executor.submit(made, 25).exception(), SerializationError)
    found = parallel_map(made, range(30), max_workers=2)
    assert found[:25] == list(range(25)) and type(found[25]) is tuple
    print("done", flush=True)
    os._exit(0)

if __name__ == "__main__":
    main()
"""


def test_what_is_nested_too_deeply_does_not_travel(tmp_path):
    """The program goes on: such a run stays in the loop, and a named backend says what is wrong."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(tmp_path / "program.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr[-3000:]


class Linked:
    def __init__(self) -> None:
        self.next = self.last = None


def _chain(length):
    nodes = [Linked() for _ in range(length)]
    for last, node in itertools.pairwise(nodes):
        last.next, node.last = node, last
    return nodes


def _doubled(levels):
    node = []
    for _ in range(levels):
        node = [node, node]
    return node


@pytest.fixture
def raised_limit():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("raised_limit")
def test_depth_is_counted_as_the_pickler_goes():
    """A list of nodes that are linked is as deep as their chain, which a look by levels misses."""
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for flat in (
        [*range(100_000)],
        [[x] for x in range(10_000)],
        _doubled(200),
        cyclic,
        gc,
        Linked,
    ):
        check_nesting(flat)
    check_nesting(_chain(500))
    chain = _chain(2 * MAX_NESTED)
    with pytest.raises(RecursionError, match="nested more than"):
        check_nesting(chain)
    for node in chain:  # its end would be nested as deeply
        node.next = node.last = None


def test_the_usual_limit_is_the_picklers_own():
    """Nothing is counted unless the program has raised the recursion limit."""
    check_nesting(_chain(2 * MAX_NESTED)[:1])
