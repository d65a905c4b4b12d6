"""Items that use what all threads of a process share: each case against the loop, as a program.

Arguments: the names of cases; none for all. Prints a line for each that differs from the loop.
"""

import contextlib
import decimal
import gc
import io
import json
import locale
import logging
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import timeit
import unittest
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

import parallax
from parallax import parallel_map

ITEMS = range(16)
WORK_S = 0.0  # in what the loop does to compare with
FOLDER = tempfile.mkdtemp()
for number in range(3):
    Path(FOLDER, str(number)).mkdir()
CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


def wait():
    time.sleep(WORK_S)


class Settings:
    debug = 0


@case
def redirects_output(item):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print(item)
        wait()
        print(item)
    return out.getvalue()


@case
def redirects_errors(item):
    out = io.StringIO()
    with contextlib.redirect_stderr(out):
        sys.stderr.write(str(item))
        wait()
        sys.stderr.write(str(item))
    return out.getvalue()


@case
def replaces_output(item):
    old, sys.stdout = sys.stdout, io.StringIO()
    try:
        print(item)
        wait()
        return sys.stdout.getvalue()
    finally:
        sys.stdout = old


def print_twice(item):
    """As an installed library would: nothing in the code of the items tells."""
    print(item)
    wait()
    print(item)


HIDDEN = compile(
    "def hidden(fn, item):\n"
    "    with redirect(StringIO()) as out:\n"
    "        fn(item)\n"
    "    return out.getvalue()\n",
    os.__file__,
    "exec",
)
library = {"redirect": contextlib.redirect_stdout, "StringIO": io.StringIO}
exec(HIDDEN, library)


@case
def redirects_inside_a_library(item):
    return library["hidden"](print_twice, item)


@case
def changes_folder(item):
    old = os.getcwd()
    os.chdir(f"{FOLDER}/{item % 3}")
    wait()
    try:
        return Path.cwd().name
    finally:
        os.chdir(old)


@case
def sets_environment(item):
    os.environ["PARALLAX_CASE"] = str(item)
    wait()
    return os.environ.pop("PARALLAX_CASE")


@case
def patches_environment(item):
    with mock.patch.dict(os.environ, {"PARALLAX_CASE": str(item)}):
        wait()
        return os.environ["PARALLAX_CASE"]


@case
def patches_a_function(item):
    with mock.patch("os.getpid", return_value=item):
        wait()
        return os.getpid()


@case
def patches_an_attribute(item):
    with mock.patch.object(Settings, "debug", item):
        wait()
        return Settings.debug


@case
@mock.patch.object(Settings, "debug", 0)
def is_patched(item):
    wait()
    return item, Settings.debug


def read_settings():
    return json.encoder.PARALLAX_CASE


@case
def sets_an_attribute_for_others(item):
    json.encoder.PARALLAX_CASE = item
    wait()
    return read_settings()


@case
def records_warnings(item):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        wait()
        warnings.warn(str(item), stacklevel=1)
    return [str(each.message) for each in seen]


@case
def ignores_warnings(item):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wait()
        warnings.warn("x", stacklevel=1)
    return item


@case
def sets_locale(item):
    old = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, "C" if item % 2 else "C.UTF-8")
    wait()
    try:
        return locale.setlocale(locale.LC_NUMERIC)
    finally:
        locale.setlocale(locale.LC_NUMERIC, old)


@case
def handles_a_signal(item):
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    wait()
    signal.signal(signal.SIGUSR1, old)
    return item


@case
def sets_an_alarm(item):
    signal.setitimer(signal.ITIMER_REAL, 10)
    wait()
    return signal.setitimer(signal.ITIMER_REAL, 0)[0] > 9, item


@case
def stops_the_collector(item):
    gc.disable()
    wait()
    try:
        return gc.isenabled(), item
    finally:
        gc.enable()


@case
def sets_the_temporary_folder(item):
    tempfile.tempdir = f"{FOLDER}/{item % 3}"
    wait()
    return Path(tempfile.gettempdir()).name


@case
def sets_the_recursion_limit(item):
    sys.setrecursionlimit(3000 + item)
    wait()
    return sys.getrecursionlimit()


@case
def sets_a_socket_timeout(item):
    socket.setdefaulttimeout(item + 1)
    wait()
    return socket.getdefaulttimeout()


@case
def sets_a_level(item):
    logger = logging.getLogger("parallax.case")
    logger.setLevel(item + 1)
    wait()
    return logger.level


@case
def asserts_what_is_logged(item):
    logger = logging.getLogger("parallax.case")
    with unittest.TestCase().assertLogs(logger, "INFO") as seen:
        logger.info("%d", item)
        wait()
    return seen.output


@case
def times_without_the_collector(item):
    timeit.timeit(wait, number=1)
    return gc.isenabled()


@case
def sets_the_limit_of_digits(item):
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(700 + item)
    wait()
    found = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(before)
    return found


@case
def sends_a_signal(item):
    wait()
    signal.raise_signal(signal.SIGUSR2)


@case
def inserts_into_a_shared_database(item):
    wait()
    return SHARED.execute("insert into t values (?)", (item,)).lastrowid


@case
def sets_the_precision(item):
    decimal.getcontext().prec = item % 9 + 1
    wait()
    return str(decimal.Decimal(1) / 3)


@case
def sets_how_arrays_print(item):
    np.set_printoptions(precision=item % 5)
    wait()
    return str(np.array([1.123456789]))


@case
def changes_the_path(item):
    sys.path.insert(0, str(item))
    wait()
    return sys.path.pop(0)


@case
def sets_the_umask(item):
    old = os.umask(item % 8)
    wait()
    return os.umask(old)


@case
def reads_a_line(item):
    wait()
    return item, sys.stdin.readline()


@case
def asks(item):
    wait()
    return item, input()


@case
def reads_the_descriptor(item):
    wait()
    return item, os.read(0, 2)


CONNECTION = sqlite3.connect(":memory:")
CURSOR = CONNECTION.cursor()
MINE = threading.local()
MINE.value = 5


COUNTED = threading.local()
COUNTED.value = 0


@case
def counts_in_its_own(item):
    wait()
    COUNTED.value += 1
    return item, COUNTED.value > 0


@case
def asks_a_connection(item):
    wait()
    return CONNECTION.execute("select ?", (item,)).fetchone()


@case
def asks_a_cursor(item):
    wait()
    return CURSOR.execute("select ?", (item,)).fetchone()


@case
def reads_a_value_of_this_thread(item):
    wait()
    return MINE.value + item


LOG, LAST, KEPT = [], {}, []


@case
def appends(item):
    time.sleep(WORK_S * (1 + item % 2))
    LOG.append(item)


@case
def overwrites(item):
    time.sleep(WORK_S * (1 + item % 2))
    LAST[item % 3] = item


@case
def fills_a_dictionary(item):
    time.sleep(WORK_S * (1 + item % 2))
    LAST[item] = item


@case
def keeps_the_last(item):
    time.sleep(WORK_S * (1 + item % 2))
    Settings.debug = item


# -- the same without the state: threads are used -------------------------------------------------

BOTH = sqlite3.connect(":memory:", check_same_thread=False)
PLACES = np.zeros(len(ITEMS))
CACHE = {}
OURS = threading.local()


@case
def twin_waits(item):
    wait()
    return item


@case
def twin_prints_to_its_own(item):
    out = io.StringIO()
    print(item, file=out)
    wait()
    return out.getvalue()


@case
def twin_uses_local_arithmetic(item):
    with decimal.localcontext() as context:
        context.prec = item % 9 + 1
        wait()
        return str(decimal.Decimal(1) / 3)


@case
def twin_fills_its_own_place(item):
    wait()
    PLACES[item] = item


@case
def twin_remembers(item):
    if item not in CACHE:
        wait()
        CACHE[item] = item
    return CACHE[item]


@case
def twin_has_values_of_each_thread(item):
    if not hasattr(OURS, "session"):
        OURS.session = object()
    wait()
    return OURS.session is not None, item


def state():
    kept = sys.stdout is OUT, sys.stderr is ERR, os.getpid is GETPID, os.getcwd(), [*os.environ]
    library_state = tempfile.tempdir, socket.getdefaulttimeout(), logging.getLogger("parallax.case")
    return str(
        (
            *kept, *library_state, warnings.filters, locale.setlocale(locale.LC_ALL), sys.path,
            signal.getsignal(signal.SIGUSR1), signal.getitimer(signal.ITIMER_REAL), gc.isenabled(),
            sys.getrecursionlimit(), sys.get_int_max_str_digits(),
            decimal.getcontext().prec, Settings.debug, PLACES.tolist(),
            np.get_printoptions()["precision"], LOG, LAST, sorted(CACHE),
        )
    )  # fmt: skip


def reset():
    os.lseek(INPUT.fileno(), 0, 0)
    os.dup2(INPUT.fileno(), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr, Settings.debug, os.getpid = OUT, ERR, 0, GETPID
    tempfile.tempdir, decimal.getcontext().prec = None, 28
    socket.setdefaulttimeout(None)
    sys.setrecursionlimit(1000)
    logging.getLogger("parallax.case").setLevel(0)
    np.set_printoptions(precision=8)
    sys.set_int_max_str_digits(4300)
    SHARED.execute("delete from t")
    LOG.clear(), LAST.clear(), CACHE.clear()
    PLACES[:] = 0


if __name__ == "__main__":
    OUT, ERR, GETPID = sys.stdout, sys.stderr, os.getpid
    INPUT = tempfile.TemporaryFile()  # noqa: SIM115
    INPUT.write(b"".join(b"%d\n" % number for number in range(100)))
    INPUT.flush()
    SHARED = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    SHARED.execute("create table t(a)")
    signal.signal(signal.SIGUSR2, lambda *args: LOG.append("a signal"))
    warnings.simplefilter("ignore", parallax.SharedStateWarning)
    for name in sys.argv[1:] or CASES:
        reset()
        wanted = [CASES[name](item) for item in ITEMS], state()
        reset()
        WORK_S = 0.004
        try:
            found = parallel_map(CASES[name], ITEMS)
            route = found.report.route
            got = list(found), state()
        except Exception as error:
            route, got = "", repr(error)
        WORK_S = 0.0
        reset()
        if got != wanted:
            OUT.write(f"{name}, in {route}: {got}, not {wanted}\n")
        # On a loaded machine waiting is not clear enough for threads.
        if name.startswith("twin") and "one after the other" in found.report.reason:
            OUT.write(f"{name} went to {route}: {found.report.reason}\n")
        OUT.flush()
    import shutil

    shutil.rmtree(FOLDER)
