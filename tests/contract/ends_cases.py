"""Objects with an end, what only the program can load, draws that only show later, each case
against the loop.

Arguments: the start method, then the names of cases, or one of 0/2 and 1/2 for a half of them; none
for all. Prints what differs.
"""

import atexit
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
import weakref
from pathlib import Path

import parallax
from parallax import parallel_map

ITEMS = range(12)
WORK_S = 0.0  # in what the loop does to compare with
HOME = os.getpid()
CASES = {}
ROOT = tempfile.mkdtemp()


def case(make):
    CASES[make.__name__] = make
    return make


def work():
    end = time.perf_counter() + WORK_S
    while time.perf_counter() < end:
        pass


class Folder:
    def __init__(self):
        self.path = tempfile.mkdtemp(dir=ROOT)

    def __del__(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Derived(Folder):
    __slots__ = ("more",)


class Finalized:
    def __init__(self):
        self.path = tempfile.mkdtemp(dir=ROOT)
        weakref.finalize(self, shutil.rmtree, self.path, True)


class Holder:
    def __init__(self):
        self.folders = {"a": [Folder()]}

    @property
    def path(self):
        return self.folders["a"][0].path

    def look(self, _):
        work()
        return Path(self.path).exists()


class Plain:
    def __init__(self):
        self.path = tempfile.mkdtemp(dir=ROOT)


def look(item):
    work()
    return Path(item.path).exists()


def second(item):
    work()
    return Path(item[1].path).exists()


@case
def items_with_del():
    return look, [Folder() for _ in ITEMS]


@case
def items_that_inherit_it():
    return look, [Derived() for _ in ITEMS]


@case
def items_that_hold_one():
    return look, [Holder() for _ in ITEMS]


@case
def items_in_tuples():
    return second, [(k, Folder()) for k in ITEMS]


@case
def one_among_others():
    return lambda item: look(item) if hasattr(item, "path") else work(), [*[0] * 9, Folder(), 1, 2]


@case
def finalized_items():
    return look, [Finalized() for _ in ITEMS]


@case
def a_captured_object():
    folder = Folder()
    return lambda _: look(folder), ITEMS


@case
def an_object_of_self():
    return Holder().look, ITEMS


def make_folder(_):
    work()
    return Folder()


@case
def results_with_del():
    return make_folder, ITEMS


def make_finalized(_):
    work()
    return Finalized()


@case
def finalized_results():
    return make_finalized, ITEMS


REGISTERED = []


def register(item):
    work()
    atexit.register(REGISTERED.append, item)
    return item


@case
def registers_with_atexit():
    return register, ITEMS


@case
def twin_of_plain_items():
    return look, [Plain() for _ in ITEMS]


def own_folder(_):
    work()
    folder = Folder()
    return Path(folder.path).exists()


@case
def twin_that_ends_inside():
    return own_folder, ITEMS


# -- what only this process can load --------------------------------------------------------------


def rebuild(kind, home, value):
    if home != os.getpid():
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}.get(kind, LookupError)(
            "not here"
        )
    return Here(value, kind)


class Here:
    def __init__(self, value, kind=""):
        self.value, self.kind = value, kind

    def __reduce__(self):
        return rebuild, (self.kind, HOME, self.value)

    def __call__(self, item):
        work()
        return item


def value_of(item):
    work()
    return getattr(item, "value", item)


@case
def a_callable_that_loads_here_only():
    return Here(1), ITEMS


@case
def items_that_load_here_only():
    return value_of, [Here(k) for k in ITEMS]


@case
def later_items_that_load_here_only():
    return value_of, [Here(k) if k > 6 else k for k in ITEMS]


@case
def items_whose_loading_exits():
    return value_of, [Here(k, "exit") for k in ITEMS]


@case
def items_whose_loading_is_interrupted():
    return value_of, [Here(k, "interrupt") for k in ITEMS]


@case
def a_default_that_loads_here_only():
    here = Here(3, "exit")
    return lambda item, default=here: (work(), default.value + item), ITEMS


# -- draws from shared generators in installed code -----------------------------------------------

library = {"random": random}
exec(compile("def draw(): return random.random()", os.__file__, "exec"), library)
GENERATOR = random.Random(1)


def draws_at_the_end(item):
    work()
    return item, library["draw"]()


def draws_from_a_held_one(item):
    work()
    return item, next(iter(map(GENERATOR.choices, ["abcdefgh"])))


@case
def a_draw_in_a_library():
    return draws_at_the_end, ITEMS


@case
def a_draw_in_a_long_item():
    return lambda item: ([work() for _ in range(9)], library["draw"]()), range(4)


@case
def a_draw_through_an_iterator():
    return draws_from_a_held_one, ITEMS


def folders(found):
    """What is left of what items and results hold."""
    ends = [each[-1] if type(each) is tuple else each for each in found]
    return [Path(each.path).exists() if hasattr(each, "path") else str(type(each)) for each in ends]


if __name__ == "__main__":
    parallax.configure(start_method=sys.argv[1])
    warnings.simplefilter("ignore", parallax.SharedStateWarning)
    chosen = sys.argv[2:] or [*CASES]
    if chosen[0] in {"0/2", "1/2"}:
        chosen = [*CASES][int(chosen[0][0]) :: 2]
    for name in chosen:
        fn, items = CASES[name]()
        random.seed(1)
        GENERATOR.seed(1)
        results = [fn(item) for item in items]
        wanted = folders(results), folders(items)
        fn, items = CASES[name]()
        random.seed(1)
        GENERATOR.seed(1)
        WORK_S = 0.006
        try:
            found = parallel_map(fn, items)
        except BaseException as error:
            print(name, repr(error))
            continue
        finally:
            WORK_S = 0.0
        got = folders(found), folders(items)
        # Threads are not looked at: on a loaded machine work looks like waiting.
        if "draw" in name and found.report.route != "threads" and list(found) != results:
            print(f"{name} in {found.report.route}: {found}, not {results}")
        if got != wanted:
            print(f"{name} in {found.report.route}: {got}")
        if name.startswith("twin") and "does something at its end" in found.report.reason:
            print(f"{name} stays: {found.report.reason}")
    shutil.rmtree(ROOT)
