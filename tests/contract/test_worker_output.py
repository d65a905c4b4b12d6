"""What items print, log and warn reaches the program's own streams, handlers and filters."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import logging.handlers
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import warnings

import jobs
import pytest
from jobs import output as voice_jobs

from parallax import ProcessPoolExecutor, WorkerDiedError, options, parallel_imap, parallel_map
from parallax._backends.processes.common import protocol

pytestmark = pytest.mark.sampled(2)

CALLS = ["map", "map-spawn", "pool", "pool-spawn", "pool-fork"]


@pytest.fixture(
    params=[w if w in {"map", "pool"} else pytest.param(w, marks=pytest.mark.full) for w in CALLS]
)
def run(request):
    """Calls a function for each item, in two worker processes or in as many as are asked for."""
    kind, _, method = request.param.partition("-")
    if method == "fork" and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("there is no fork here")

    def by_map(fn, items, workers=2):
        with options(start_method="spawn") if method else contextlib.nullcontext():
            return list(parallel_map(fn, items, backend="processes", max_workers=workers))

    def by_pool(fn, items, workers=2):
        context = multiprocessing.get_context(method) if method else None
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return [future.result() for future in [pool.submit(fn, item) for item in items]]

    return by_map if kind == "map" else by_pool


class Kept(logging.Handler):
    """A handler of the program's."""

    def __init__(self, then=lambda record: None):
        super().__init__()
        self.records = []
        self.then = then

    def emit(self, record):
        self.records.append(record)
        self.then(record)

    @property
    def messages(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept():
    """A handler on the root logger, for everything from INFO on."""
    handler = Kept()
    level = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    yield handler
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)


# -- log records -----------------------------------------------------------------------------------


def test_records_reach_handlers(run, kept):
    """As they were made, with the process that they were made in; by level, as in one process."""
    pids = run(voice_jobs.informs, range(8))
    assert sorted(kept.messages) == [f"item {x} of output" for x in range(8)]
    assert {record.process for record in kept.records} == set(pids)
    assert os.getpid() not in pids
    (record,) = (r for r in kept.records if r.args[0] == 3)
    assert (record.name, record.levelname, record.msg) == ("output.jobs", "INFO", "item %d of %s")
    assert (record.funcName, record.filename) == ("informs", "output.py")
    assert record.processName != multiprocessing.current_process().name
    assert record.relativeCreated > 0.0


def test_logging_is_set_up_after_an_executor_was_made(make_pool, request):
    """Its workers hear of it with their next task; of a root logger that was reset, too."""
    pool = make_pool(1)
    pool.submit(abs, 1).result()
    kept = request.getfixturevalue("kept")
    pool.submit(voice_jobs.informs, 1).result()
    logging.root.setLevel(logging.WARNING)
    pool.submit(voice_jobs.informs, 2).result()
    assert kept.messages == ["item 1 of output"]


def test_caplog(run, caplog):
    """The tool that tests of programs use."""
    with caplog.at_level(logging.INFO, "output"):
        run(voice_jobs.informs, range(4))
    assert sorted(caplog.messages) == [f"item {x} of output" for x in range(4)]


def test_exceptions_and_stacks(run, kept):
    """The traceback comes as text, as formatters show it."""
    run(voice_jobs.fails_and_logs, [1, 0])
    (record,) = kept.records
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("cannot divide by 0\nTraceback (most recent call last):\n")
    assert "ZeroDivisionError" in text
    assert record.stack_info in text
    assert "in fails_and_logs" in record.stack_info


def test_what_does_not_pickle_comes_as_text(run, kept, capsys):
    """Extras as their repr, arguments in the message; and what cannot be formatted harms nobody."""
    run(voice_jobs.logs_odd_things, [1])
    record, wrong = kept.records
    assert record.getMessage().startswith("<class 'jobs.output.Odd'> and <unlocked _thread.lock")
    assert record.odd == voice_jobs.Odd()
    assert record.lock.startswith("<unlocked _thread.lock")
    assert record.unloadable == "<unloadable>"
    assert wrong.msg == "not a %d"


def test_the_program_decides_on_the_way(run, kept, capsys):
    """Loggers that do not propagate, filters; nothing is shown twice."""
    apart, filtered = logging.getLogger("output.apart"), Kept()
    apart.addHandler(filtered)
    apart.propagate = False
    apart.addFilter(lambda record: record.args != (2,))
    try:
        run(voice_jobs.logs_by_others, range(4))
    finally:
        apart.removeHandler(filtered)
        apart.propagate = True
        apart.filters.clear()
    assert sorted(filtered.messages) == ["apart 0", "apart 1", "apart 3"]
    assert sorted(kept.messages) == [f"own {x}" for x in range(4)]


def test_a_handler_that_the_worker_has_is_used_there(make_pool, kept, capsys):
    """A module gives its logger a handler, here and in workers: each record is shown once."""
    handler = voice_jobs.own.handlers[0]
    stream = handler.setStream(sys.stderr)
    try:
        list(make_pool().map(voice_jobs.logs_by_others, range(4)))
    finally:
        handler.setStream(stream)
    assert sorted(kept.messages) == sorted(f"{n} {x}" for x in range(4) for n in ("apart", "own"))
    assert sorted(capsys.readouterr().err.split("\n")) == ["", *(f"own {x}" for x in range(4))]


def test_an_initializer_may_set_up_logging(make_pool, kept, capsys):
    """It does what it does in a fresh process, and what it has set up is used there."""
    pool = make_pool(1, initializer=voice_jobs.set_up)
    pool.submit(voice_jobs.informs, 1).result()
    assert kept.messages == []
    assert capsys.readouterr().err == "set up: item 1 of output\nset up: not wanted\n"


def test_queue_handler(run):
    """What programs with many threads use."""
    records = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    voice_jobs.log.addHandler(handler)
    voice_jobs.log.setLevel(logging.INFO)
    try:
        run(voice_jobs.informs, range(3))
    finally:
        voice_jobs.log.removeHandler(handler)
        voice_jobs.log.setLevel(logging.NOTSET)
    found = [records.get_nowait().getMessage() for _ in range(3)]
    assert sorted(found) == [f"item {x} of output" for x in range(3)]


def test_a_handler_that_raises_harms_nobody(run, kept, capsys, monkeypatch):
    """As ``logging`` has it: a traceback on standard error, if that is wanted."""
    kept.then = lambda record: 1 // 0
    for wanted in (True, False):
        monkeypatch.setattr(logging, "raiseExceptions", wanted)
        assert len(run(voice_jobs.informs, range(3))) == 3
        assert ("ZeroDivisionError" in capsys.readouterr().err) is wanted
    assert len(kept.records) == 6


def test_a_handler_may_use_parallax(kept):
    """Calls of its own, also with the executor that it hears of."""

    def again(record):
        if record.name == "output.jobs":
            with options(start_method="spawn" if len(kept.records) > 1 else "auto"):
                found = parallel_map(abs, [-1, -2], backend="processes", max_workers=2)
            assert found == [1, 2]
            found = pool.submit(abs, -3)
            assert found.result() == 3

    kept.then = again
    with ProcessPoolExecutor(1) as pool:
        parallel_map(voice_jobs.informs, [1, 2], backend="processes", max_workers=1)
        assert pool.submit(voice_jobs.informs, 3).result() > 0
        futures = [pool.submit(voice_jobs.informs, x) for x in (4, 5)]
        ended = threading.Event()
        futures[-1].add_done_callback(lambda _: ended.set())
        assert ended.wait(30.0)
    assert sorted(kept.messages) == [f"item {x} of output" for x in range(1, 6)]


# -- output ----------------------------------------------------------------------------------------


def test_output_is_captured(run, capsys):
    """By tests of programs."""
    run(voice_jobs.prints, range(6))
    found = capsys.readouterr()
    assert sorted(found.out.split("\n")) == ["", *(f"out {x}" for x in range(6))]
    assert sorted(found.err.split("\n")) == ["", *(f"err {x}" for x in range(6))]


def test_output_is_redirected(run):
    """By the standard library, to whatever there is: in the middle of an executor's life, too."""
    first, second = io.StringIO(), io.StringIO()
    for stream in (first, second):
        with contextlib.redirect_stdout(stream):
            run(voice_jobs.prints, range(3))
        assert sorted(stream.getvalue().split("\n")) == ["", "out 0", "out 1", "out 2"]


def test_output_is_redirected_after_an_executor_was_made(make_pool):
    """Its workers hear of it with their next task."""
    pool = make_pool(1)
    pool.submit(abs, 1).result()
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        pool.submit(voice_jobs.prints, 1).result()
    assert stream.getvalue() == "out 1\n"


def test_parts_of_lines_and_of_characters(run):
    """Come as they are, as far as the program's stream can show them."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        run(voice_jobs.prints_parts, [1], 1)
    assert stream.getvalue() == "a1b\nc\u20ac\\xff\n\udc80\u2603\n"
    raw = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(raw, "ascii", newline="\n")) as narrow:
        run(voice_jobs.prints_parts, [1], 1)
        narrow.flush()
        assert raw.getvalue() == b"a1b\nc\\u20ac\\xff\n\\udc80\\u2603\n"


class Sink:
    """Takes what is written and only counts it."""

    def __init__(self):
        self.size = self.longest = 0

    def write(self, text):
        self.size += len(text)
        self.longest = max(self.longest, len(text))

    def flush(self):
        pass


def test_much_output(run):
    """It comes piece by piece, and all of it: 100 MB from each of two items."""
    count = 1_000_000
    work = functools.partial(voice_jobs.prints_much, count)
    with contextlib.redirect_stdout(Sink()) as sink:
        assert run(work, [1, 2]) == [1, 2]
    assert sink.size == 2 * count * 100
    assert sink.longest <= 1 << 17


def test_a_reader_that_is_away(kept):
    """Whoever says much waits for it, and can be ended meanwhile."""
    work = functools.partial(voice_jobs.prints_much, 30_000)
    for read in (0, 1):
        with contextlib.redirect_stdout(Sink()) as sink:
            stream = parallel_imap(work, range(8), backend="processes", max_workers=2, chunksize=1)
            for x in range(read):
                assert next(stream) == x
                assert sink.size >= 3_000_000
            stream.close()


def test_workers_of_workers(make_pool, capsys):
    """What they print comes through the worker between."""
    assert list(make_pool(1).map(voice_jobs.nested, [1, 2])) == [True, True]
    found = capsys.readouterr().out
    assert sorted(found.split("\n")) == ["", "out 10", "out 11", "out 20", "out 21"]


# -- warnings --------------------------------------------------------------------------------------


def test_warnings_are_recorded(run):
    """As often as in a loop: what was shown once is not shown once per worker."""
    for action, times in (("default", 1), ("always", 8)):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter(action)
            run(voice_jobs.warns, range(8))
        careful = [w for w in found if w.category is voice_jobs.Careful]
        assert len(careful) == times
        assert isinstance(careful[0].message, voice_jobs.Careful)
        assert careful[0].filename == voice_jobs.__file__
        # Python 3.12 and later may warn of the fork itself.
        others = sorted(text for w in found if (text := str(w.message)).startswith("deprecated"))
        assert others == [f"deprecated {x}" for x in range(8)]


def test_warnings_become_records(run, kept):
    """With ``logging.captureWarnings``."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            run(voice_jobs.warns, [1])
        finally:
            logging.captureWarnings(False)
    assert {record.name for record in kept.records} == {"py.warnings"}
    found = [m for m in kept.messages if "use of fork()" not in m]
    assert ["Careful: carefully" in m for m in found] == [True, False]


# -- order, threads, processes ---------------------------------------------------------------------


class Lines(io.StringIO):
    """Standard output of a program that keeps everything in one list."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    def write(self, text):
        self.events += text.split("\n")
        return len(text)


def said(x):
    """What ``says_all`` says."""
    kinds = ("part", "log", "print", "warn")
    return [f"{kind} {x} {turn}" for turn in range(3) for kind in kinds]


@contextlib.contextmanager
def heard(kept):
    """Everything that is said, in one list."""
    events: list[str] = []
    kept.then = lambda record: events.append(record.getMessage())
    with warnings.catch_warnings(), contextlib.redirect_stdout(Lines(events)):
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: events.append(str(message))
        yield events


def heard_of(events):
    return [event for event in events if event]


@pytest.mark.parametrize("start_method", ["auto", pytest.param("spawn", marks=pytest.mark.full)])
def test_order_with_results(kept, start_method):
    """When the result of an item is there, all that it said is, in its order."""
    with options(start_method=start_method), heard(kept) as events:
        stream = parallel_imap(
            voice_jobs.says_all, range(20), backend="processes", max_workers=1, chunksize=1
        )
        for x in stream:
            assert heard_of(events)[: 12 * (x + 1)] == [e for y in range(x + 1) for e in said(y)]
    assert len(heard_of(events)) == 240


def test_order_with_results_of_executors(kept, make_pool):
    """Whoever reads them: the thread that waits, or the executor's own, before callbacks run."""
    with heard(kept) as events:
        pool = make_pool(1)
        for x in range(5):
            assert pool.submit(voice_jobs.says_all, x).result() == x
            assert heard_of(events) == said(x)
            events.clear()
        for x in range(5):
            ended, found = threading.Event(), []
            future = pool.submit(voice_jobs.says_all, x)
            future.add_done_callback(lambda _, f=found, e=ended: (f.extend(events), e.set()))
            assert ended.wait(30.0)
            assert heard_of(found) == said(x)
            events.clear()


def test_order_with_many_workers(kept, run):
    """Each worker's in its order."""
    with heard(kept) as events:
        run(voice_jobs.says_all, range(40))
    by_item = {x: [e for e in heard_of(events) if e.split()[1] == str(x)] for x in range(40)}
    assert by_item == {x: said(x) for x in range(40)}


def test_threads_of_an_item(run, kept, capsys):
    """Several speak at once, while large results leave."""
    results = run(voice_jobs.says_by_threads, range(6))
    assert [len(r) for r in results] == [300_000] * 6
    assert kept.messages.count("49 of 50") == 18
    assert len(kept.records) == 6 * 150
    assert sorted(capsys.readouterr().out.split()) == [*"012345", *["done"] * 6]


def test_threads_that_outlive_their_item(run, kept, eventually):
    """Between two calls nobody listens; what they said comes with the next."""
    run(voice_jobs.leaves_a_thread, [1, 2], 1)
    run(voice_jobs.informs, [1], 1)
    assert "item 1 of output" in kept.messages


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forks_of_an_item(run, kept, capfd):
    """Write where the worker would; what the parent hears is not disturbed."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(voice_jobs.forks, range(4)) == [7] * 4
    # A warm worker may still have had something to say that an earlier test has not waited for.
    heard = [message for message in kept.messages if not message.startswith("after")]
    assert sorted(heard) == [f"parent {x}" for x in range(4)]
    assert sorted(capfd.readouterr().out.split("\n")) == ["", *(f"child {x}" for x in range(4))]


@pytest.mark.skipif(not hasattr(signals := __import__("signal"), "setitimer"), reason=str(signals))
def test_signal_handlers_in_the_middle(run, kept, capsys):
    """That speak, and that raise: what is said stays whole."""
    assert run(voice_jobs.signalled, [1, 2]) == [1, 2]
    assert kept.messages.count("signal") >= 40
    assert set(kept.messages) <= {"signal", *map(str, range(1000))}
    capsys.readouterr()


def test_last_words(kept, capsys):
    """Of a worker that dies."""
    results = parallel_map(
        voice_jobs.dies,
        range(4),
        backend="processes",
        max_workers=2,
        chunksize=1,
        on_error="return",
    )
    assert isinstance(results[2], WorkerDiedError)
    out = capsys.readouterr().out
    assert [out.count(f"last words {x}") for x in range(4)] == [1] * 4
    assert kept.messages == ["dying"] * 4


@pytest.mark.variants("processes", "spawn")
@pytest.mark.skipif(protocol.RECALL is None, reason="there are no signals between processes")
def test_recall_during_a_storm(backend, tmp_path, kept, capsys):
    """Items that are taken back from a worker that speaks are run elsewhere, once."""
    for waiter, other in ((30, 49), (120, 399)):
        folder = tmp_path / str(waiter)
        folder.mkdir()
        work = functools.partial(jobs.waits_for, waiter, other, str(folder))
        work = functools.partial(voice_jobs.waits_and_logs, work)
        assert parallel_map(work, range(400), backend=backend, max_workers=2) == [*range(400)]
        expected = sorted(f"before {x} {n}" for x in range(400) for n in range(5))
        assert sorted(kept.messages) == expected
        out = capsys.readouterr().out
        assert sorted(out.split("\n")[:-1]) == sorted(f"after {x}" for x in range(400))
        kept.records.clear()


def test_a_storm_in_an_executor(make_pool, kept):
    """Many short tasks and long ones that log thousands of lines, taken back and given out."""
    pool = make_pool(2)
    sizes = [1, 0, 2, 1500, 0, 1] * 3
    futures = [pool.submit(voice_jobs.informs_loudly, size) for size in sizes]
    assert [future.result() for future in futures] == sizes
    assert len(kept.records) == sum(sizes)


# -- what it costs ---------------------------------------------------------------------------------

PROBE = """
import sys

def loaded(x):
    names = ("logging", "parallax._backends.processes.worker.output_sender")
    return [name for name in names if name in sys.modules], type(sys.stdout).__name__
"""

SCRIPT = """
import probe
from parallax import ProcessPoolExecutor, options, parallel_map

for method in ("auto", "spawn"):
    with options(start_method=method):
        print(parallel_map(probe.loaded, [1], backend="processes"))
with ProcessPoolExecutor(1) as pool:
    print(pool.submit(probe.loaded, 1).result())
"""


def test_nothing_is_loaded_for_a_program_that_hears_nothing(tmp_path):
    """Neither logging nor what sends."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PARALLAX_START_METHOD": "zygote"},  # a fork has what the program has
    )
    one = "([], 'TextIOWrapper')"
    assert (done.stdout, done.stderr) == (f"[{one}]\n[{one}]\n{one}\n", "")
