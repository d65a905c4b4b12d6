"""What callers may ask for: every bad wish refused with its message, and whose wish counts."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import jobs
import pytest

from parallax import configure, explain, options, parallel_imap, parallel_map
from parallax._core.options import Options, resolve


def refused(error, words, *args, **kwargs):
    """A call, a stream and an explanation refuse it at once, before anything is started."""
    before = threading.active_count()
    for call in (parallel_map, parallel_imap):
        with pytest.raises(error, match=words):
            call(*args, **kwargs)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (None, "fn must be callable, not None"),
        ([1, 2], r"parallel_map\(fn, items\), not parallel_map\(fn\(items\)\)"),
        (4, "callable"),
        ("name", "callable"),
    ],
)
def test_fn_not_callable(fn, words):
    """Something that cannot be called is refused, with the right call beside the wrong one."""
    refused(TypeError, words, fn, [1, 2])
    with pytest.raises(TypeError, match=words):
        explain(fn, [1, 2])


async def coroutine(x):
    return x


def generator(x):
    yield x


async def async_generator(x):
    yield x


class CallableCoroutine:
    async def __call__(self, x):
        return x

    def method(self, x):
        yield x


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (coroutine, "coroutine is a coroutine function.*asyncio"),
        (functools.partial(coroutine, 1), "coroutine function"),
        (CallableCoroutine(), "coroutine function"),
        (generator, r"generator is a generator function.*lambda x: list\(generator\(x\)\)"),
        (async_generator, "generator function"),
        (functools.partial(generator), "generator function"),
        (CallableCoroutine().method, "generator function"),
        (lambda x: (yield x), "generator function"),
    ],
)
def test_functions_that_run_nothing(fn, words):
    """Coroutine and generator functions are refused, and the message says what to do."""
    refused(TypeError, words, fn, [1, 2])


def test_no_iterable():
    """Without input there is nothing to do."""
    refused(TypeError, r"at least one iterable, as in parallel_map\(fn, items\)", abs)


@pytest.mark.parametrize("items", [5, None, abs, object()])
def test_not_iterable(items):
    """Something that cannot be iterated is refused as in a for loop."""
    refused(TypeError, "not iterable", abs, items)
    refused(TypeError, "not iterable", jobs.add, [1], items)


@pytest.mark.parametrize(
    "name",
    ["max_workers", "chunksize", "buffersize", "max_tasks_per_child", "max_memory_per_worker"],
)
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, "{} must be at least 1, not 0"),
        (-1, ValueError, "{} must be at least 1, not -1"),
        (2.0, TypeError, r"{} must be a whole number, not 2\.0"),
        (2.5, TypeError, "{} must be a whole number"),
        (True, TypeError, "{} must be a whole number, not True"),
        (False, TypeError, "{} must be a whole number, not False"),
        ("2", TypeError, "{} must be a whole number, not '2'"),
    ],
)
def test_counts(name, value, error, words):
    """Counts are whole numbers from one on, and a bool is none."""
    refused(error, words.format(name), abs, [1], **{name: value})


def test_retries():
    """No retries are fine, fewer are not."""
    assert parallel_map(abs, [-1], retries=0) == [1]
    refused(ValueError, "retries must be at least 0, not -1", abs, [1], retries=-1)
    refused(TypeError, "retries must be a whole number", abs, [1], retries=1.0)


def test_numpy_integers_are_whole_numbers():
    """Anything with ``__index__`` is a number."""
    import numpy as np

    assert parallel_map(abs, [-1, -2], chunksize=np.int64(1), max_workers=np.int32(2)) == [1, 2]


@pytest.mark.parametrize("name", ["timeout", "item_timeout"])
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (-1, ValueError, "{} must be >=? ?0 seconds, not -1"),
        (-0.5, ValueError, "{} must be"),
        (float("nan"), ValueError, "{} must be"),
        ("1", TypeError, "{} must be a number of seconds, not '1'"),
        (True, TypeError, "{} must be a number of seconds, not True"),
    ],
)
def test_seconds(name, value, error, words):
    """Durations are numbers that are not negative."""
    refused(error, words.format(name), abs, [1], **{name: value})


def test_item_timeout_of_nothing():
    """No item can be done in no time."""
    refused(ValueError, "item_timeout must be > 0", abs, [1], item_timeout=0)


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_item_timeout_where_nothing_can_be_ended(backend):
    """It is refused, with the reason and the remedy."""
    refused(
        ValueError,
        f"item_timeout cannot be kept with backend='{backend}': only a process can be ended.*"
        f"backend='processes'",
        abs,
        [1],
        item_timeout=1,
        backend=backend,
    )


def test_item_timeout_with_an_executor():
    """Nor can it be kept in somebody else's executor."""
    with ThreadPoolExecutor(1) as executor:
        refused(ValueError, "ThreadPoolExecutor", abs, [1], item_timeout=1, backend=executor)


@pytest.mark.parametrize("name", ["max_tasks_per_child", "max_memory_per_worker"])
def test_recycling_where_nothing_can_be_replaced(name, configured, monkeypatch):
    """It is refused like ``item_timeout``; as a default it is for the calls that can keep it."""
    words = f"{name} cannot be kept with backend='threads'.*backend='processes'"
    refused(ValueError, words, abs, [1], backend="threads", **{name: 5})
    with pytest.raises(ValueError, match=words):
        explain(abs, [1], backend="threads", **{name: 5})
    with ThreadPoolExecutor(1) as executor:
        refused(ValueError, "ThreadPoolExecutor", abs, [1], backend=executor, **{name: 5})
    monkeypatch.setenv(f"PARALLAX_{name.upper()}", "7")
    assert getattr(resolve({}), name) == 7
    assert getattr(resolve({"backend": "processes"}), name) == 7
    assert getattr(resolve({"backend": "threads"}), name) is None
    configured(**{name: 6})
    assert getattr(resolve({}), name) == 6
    assert parallel_map(abs, [-1], backend="serial") == [1]


def test_item_timeout_with_chunks():
    """Items of one chunk share a worker, so larger chunks are refused with it."""
    refused(ValueError, "item by item", abs, [1], item_timeout=1, chunksize=2)


def test_unknown_backend():
    """The message lists the known ones."""
    refused(
        ValueError,
        "unknown backend 'thread'; known backends: 'auto', 'serial', 'threads', 'processes'",
        abs,
        [1],
        backend="thread",
    )


@pytest.mark.parametrize("backend", [5, ThreadPoolExecutor, object(), ["threads"], b"threads"])
def test_backend_of_the_wrong_type(backend):
    """Neither a name nor an executor object; the class is not the object."""
    refused(
        TypeError, "backend must be one of 'auto'.*Executor object, not", abs, [1], backend=backend
    )


def test_on_error():
    """Two ways to take errors, no third."""
    refused(
        ValueError,
        "on_error must be 'raise' or 'return', not 'ignore'",
        abs,
        [1],
        on_error="ignore",
    )


@pytest.mark.parametrize("name", ["strict"])
def test_flags(name):
    """A flag is True or False."""
    refused(TypeError, f"{name} must be True or False, not 1", abs, [1], **{name: 1})


def test_ordered():
    """``ordered`` is a flag of streams."""
    with pytest.raises(TypeError, match="ordered must be True or False"):
        parallel_imap(abs, [1], ordered="yes")


def test_progress():
    """Progress is a flag, a bar or a callable."""
    refused(TypeError, "progress must be True, False, a tqdm object, a pair", abs, [1], progress=5)


def test_unknown_option():
    """A misspelt option is a TypeError; where defaults are set the known ones are listed."""
    with pytest.raises(TypeError, match="max_worker"):
        parallel_map(abs, [1], max_worker=2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unknown option 'max_worker'; known options: backend"):
        configure(max_worker=2)
    with pytest.raises(TypeError, match="unknown option"), options(max_worker=2):
        pass


def test_bad_defaults_are_refused_where_they_are_set():
    """Not at the next call."""
    with pytest.raises(ValueError, match="chunksize"):
        configure(chunksize=0)
    with (
        pytest.raises(ValueError, match="unknown start_method 'fork'"),
        options(start_method="fork"),
    ):
        pass
    with pytest.raises(ValueError, match="idle_timeout"):
        configure(idle_timeout=-1)
    assert resolve({}) == Options()


def test_generator_is_not_touched_when_the_call_is_refused():
    """A refused call takes nothing from its input."""
    items = iter([1, 2, 3])
    with pytest.raises(ValueError, match="chunksize"):
        parallel_map(abs, items, chunksize=0)
    assert list(items) == [1, 2, 3]


# -- whose wish counts -----------------------------------------------------------------------------


@pytest.fixture
def configured():
    """Sets process-wide defaults and takes them back."""
    names = set()

    def configure_for_now(**defaults):
        names.update(defaults)
        configure(**defaults)

    yield configure_for_now
    configure(**dict.fromkeys(names))


def test_precedence(configured, monkeypatch):
    """The call, then the innermost block, then configure, then the environment."""
    assert resolve({}).chunksize is None
    monkeypatch.setenv("PARALLAX_CHUNKSIZE", "5")
    assert resolve({}).chunksize == 5
    configured(chunksize=4)
    assert resolve({}).chunksize == 4
    with options(chunksize=3):
        assert resolve({}).chunksize == 3
        with options(chunksize=2, retries=1):
            assert resolve({}).chunksize == 2
            assert resolve({"chunksize": 1}).chunksize == 1
            assert resolve({"chunksize": None}).chunksize == 2
            assert resolve({}).retries == 1
        assert resolve({}).chunksize == 3
        assert resolve({}).retries == 0
    assert resolve({}).chunksize == 4


def test_false_and_zero_are_wishes(configured):
    """Only None means "not given"."""
    configured(progress=True, retries=3, ordered=False)
    got = resolve({"progress": False, "retries": 0, "ordered": True})
    assert (got.progress, got.retries, got.ordered) == (False, 0, True)


def test_configure_is_taken_back_by_none(configured):
    """None takes an earlier setting back, name by name."""
    configured(chunksize=4, retries=1)
    configure(chunksize=None)
    assert (resolve({}).chunksize, resolve({}).retries) == (None, 1)


def test_options_hold_for_their_thread_only():
    """A block in one thread is nothing to another."""
    seen = []
    with options(chunksize=3):
        thread = threading.Thread(target=lambda: seen.append(resolve({}).chunksize))
        thread.start()
        thread.join()
    assert seen in ([None], [3])  # a free-threaded build lets threads inherit the context


def test_options_are_left_by_an_error():
    """A block that is left by an exception counts no longer."""
    with pytest.raises(KeyError), options(chunksize=3):
        raise KeyError
    assert resolve({}).chunksize is None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MAX_WORKERS", "many", "PARALLAX_MAX_WORKERS must be a whole number, not 'many'"),
        ("IDLE_TIMEOUT", "soon", "PARALLAX_IDLE_TIMEOUT must be a number, not 'soon'"),
        ("RETRIES", "-1", "PARALLAX_RETRIES=-1: retries must be at least 0"),
        ("BACKEND", "gpu", "PARALLAX_BACKEND=gpu: unknown backend 'gpu'"),
        ("START_METHOD", "fork", "PARALLAX_START_METHOD=fork: unknown start_method"),
        ("MAX_WORKERS", "0", "PARALLAX_MAX_WORKERS=0: max_workers must be at least 1"),
    ],
)
def test_bad_environment(monkeypatch, name, text, words):
    """A bad variable is named."""
    monkeypatch.setenv(f"PARALLAX_{name}", text)
    with pytest.raises(ValueError, match=words):
        parallel_map(abs, [1])


def test_environment(monkeypatch):
    """Each variable does what its option does; an empty one is none."""
    monkeypatch.setenv("PARALLAX_BACKEND", "serial")
    monkeypatch.setenv("PARALLAX_MAX_WORKERS", "")
    monkeypatch.setenv("PARALLAX_IDLE_TIMEOUT", "2.5")
    got = resolve({})
    assert (got.backend, got.max_workers, got.idle_timeout) == ("serial", None, 2.5)
    assert parallel_map(abs, [-1]).report.backend == "serial"
