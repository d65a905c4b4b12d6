"""@parallel: what it leaves as it was, what it refuses, and how its functions pickle."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pickle
import pydoc
import subprocess
import sys
import typing
import weakref
from pathlib import Path

import cloudpickle
import pytest
from jobs import decorated as jobs
from jobs.decorated import Model, Wider

from parallax import parallel, parallel_map
from parallax._guard.effects import scan
from parallax._transport import wrapped_functions
from parallax._transport.codec import decode, encode

TESTS = Path(__file__).parents[2]


# -- a plain call, and what is known of the function -----------------------------------------------


def test_a_call_is_the_function():
    """Positional, keyword and default arguments; errors are those of the function."""
    assert jobs.add(1, b=2) == 3
    assert jobs.add(1) == 11
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'a'"):
        jobs.add()


def test_a_call_passes_no_python_code():
    """No frame lies between the caller and the function: that is what makes it cheap."""

    @parallel
    def caller():
        return sys._getframe(1).f_code.co_name

    assert caller() == "test_a_call_passes_no_python_code"


def test_what_is_known_of_it():
    """Name, docstring, signature, annotations, module, help, as of the function."""
    f = jobs.square
    assert (f.__name__, f.__qualname__, f.__module__) == ("square", "square", "jobs.decorated")
    assert f.__doc__ == inspect.getdoc(f) == "The square of a number."
    assert inspect.signature(f) == inspect.signature(f.__wrapped__)
    assert typing.get_type_hints(f) == {"x": int, "return": int}
    assert inspect.unwrap(f) is f.__wrapped__
    assert type(f.__wrapped__) is type(jobs.spin)
    help_text = pydoc.render_doc(f, renderer=pydoc.plaintext)
    assert "square" in help_text
    assert "The square of a number." in help_text
    assert callable(f)
    assert "square" in repr(f)
    assert weakref.ref(f)() is f
    assert {f: 1}[f] == 1


def test_what_is_known_of_a_method():
    """The same of a method on an object, without self."""
    bound = Model(2).times
    assert (bound.__name__, bound.__qualname__) == ("times", "Model.times")
    assert bound.__doc__ == inspect.getdoc(bound) == "A multiple."
    assert list(inspect.signature(bound).parameters) == ["x"]
    assert list(inspect.signature(Model.times).parameters) == ["self", "x"]
    assert list(inspect.signature(Model.over_class).parameters) == ["x"]
    assert typing.get_type_hints(bound) == {"x": int, "return": int}
    assert bound.__self__ == Model(2)
    assert "A multiple." in pydoc.render_doc(bound, renderer=pydoc.plaintext)


def test_methods():
    """Each kind, in both orders of the decorators, on objects and on classes."""
    model = Model(7)
    assert model.times(2) == Model.times(model, 2) == 14
    assert Wider(2).times(3) == 600
    assert model.hidden()(3) == -21
    assert model.over_static(1) == Model.over_static(1) == 2
    assert model.under_static(1) == Model.under_static(1) == 3
    assert model.over_class(2) == Model.over_class(2) == 6
    assert model.under_class(2) == Model.under_class(2) == 6
    assert Wider.over_class(2) == Wider.under_class(2) == 10


def test_bound_methods_are_equal_as_methods_are():
    """By the object and the function."""
    model = Model()
    assert model.times == model.times
    assert hash(model.times) == hash(model.times)
    assert model.times != Model().times
    assert model.times != model.remember
    assert model.times != model.times.options(retries=1)
    assert model.times != 5


def test_a_bound_method_keeps_its_object_only_as_long_as_it_lives():
    """No cycle is left behind."""
    model = Model()
    seen = weakref.ref(model)
    bound = model.times
    del model
    assert seen() is not None
    del bound
    assert seen() is None


def test_attributes_of_the_function():
    """Its own attributes, those of what it wraps, and none that are not there."""
    jobs.cached.cache_clear()
    assert jobs.cached(1) == jobs.cached(1) == 2
    assert jobs.cached.cache_info().hits == 1
    assert jobs.cached_over(1) == 2

    def tagged():
        return 1

    tagged.tag = "here"
    tagged.map = "its own"
    f = parallel(tagged)
    assert f.tag == "here"
    assert callable(f.map)  # what the decorator is for wins
    with pytest.raises(AttributeError, match="missing"):
        _ = f.missing


def test_other_callables():
    """Lambdas, partials, callable objects, builtins and functions under other decorators."""

    class Adder:
        def __init__(self):
            self.by = 3
            self.map = "state of its own"

        def __call__(self, x):
            return self.by + x

    assert parallel(lambda x: x + 1).map([1]) == [2]
    assert parallel(functools.partial(jobs.add, 5)).map([1]) == [6]
    assert parallel(Adder()).map([1]) == [4]
    assert parallel(len).map(["ab"]) == [2]
    assert parallel(Model(3).times).map([2]) == [6]
    assert parallel(jobs.twice_traced)(1) == (jobs.CALLS, 1)
    assert functools.wraps(jobs.square)(lambda x: jobs.square(x))(3) == 9


def test_a_callable_object_in_a_class_is_not_bound():
    """As without the decorator: classes bind functions only."""

    class Holder:
        size = parallel(len)

    assert Holder().size("abc") == 3
    assert Holder().size.map(["abc"]) == [3]


# -- what is refused -------------------------------------------------------------------------------


async def _coroutine(x):
    return x


def _generator(x):
    yield x


async def _async_generator(x):
    yield x


class _Async:
    async def __call__(self, x):
        return x


@pytest.mark.parametrize("fn", [_coroutine, _Async(), functools.partial(_coroutine, 1)])
def test_coroutine_functions_are_refused(fn):
    """The message names what takes them."""
    with pytest.raises(TypeError, match=r"coroutine function.*parallax\.amap"):
        parallel(fn)


@pytest.mark.parametrize("fn", [_generator, functools.partial(_generator, 1)])
def test_generator_functions_are_refused(fn):
    """Calling one runs nothing."""
    with pytest.raises(TypeError, match="generator function"):
        parallel(fn)


def test_asynchronous_generators_are_refused():
    """They are neither of both."""
    with pytest.raises(TypeError, match="_async_generator"):
        parallel(_async_generator)


def test_classes_are_refused():
    """The message shows what maps a class."""
    with pytest.raises(TypeError, match=r"not for classes.*parallel_map\(Model, items\)"):
        parallel(Model)


@pytest.mark.parametrize("what", [5, None, "text", property(len)])
def test_what_is_not_callable_is_refused(what):
    """Where the decorator stands, not at the first call."""
    with pytest.raises(TypeError, match="functions and methods"):
        parallel(what)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_worker": 2}, TypeError),
        ({"ordered": False}, TypeError),
        ({"start_method": "spawn"}, TypeError),
        ({"max_workers": "two"}, TypeError),
        ({"max_workers": 0}, ValueError),
        ({"backend": "fibers"}, ValueError),
        ({"backend": "threads", "item_timeout": 1}, ValueError),
    ],
)
def test_options_are_checked_at_once(options, error):
    """At decoration, and by ``options`` as well."""
    with pytest.raises(error):
        parallel(**options)
    with pytest.raises(error):
        parallel(jobs.add.__wrapped__, **options)
    with pytest.raises(error):
        jobs.add.options(**options)


def test_options_of_a_call_are_checked():
    """By each method, before an item is run."""
    for call in (jobs.add.map, jobs.add.imap, jobs.add.starmap):
        with pytest.raises(TypeError, match="max_worker"):
            call([(1,)], max_worker=2)
        with pytest.raises(ValueError, match="at least 1"):
            call([(1,)], max_workers=0)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="classmethod chains descriptors")
def test_under_classmethod_the_class_is_not_lost_in_silence():
    """classmethod gives no chance to bind; found by name in a module, else by who refers to it."""

    class Local:
        @classmethod
        @parallel
        def make(cls, x):
            return cls, x

        @staticmethod
        @parallel
        def free(x):
            return x

    for method in (Model.under_class, Local.make):
        assert method(1)
        for call in (method.map, method.imap, method.starmap, method.explain, method.submit):
            with pytest.raises(TypeError, match="Put @parallel on top"):
                call([(1,)])
    assert Local.free.map([1]) == [1]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="classmethod does not chain descriptors")
def test_under_classmethod_the_class_is_bound():
    """Up to Python 3.12."""
    assert Wider.under_class.map([1, 2]) == [5, 10]


# -- options ---------------------------------------------------------------------------------------


def test_the_calls_own_options_win():
    """Over those of ``options``, over those of the decorator; None is none given."""
    f = parallel(max_workers=3, backend="threads")(jobs.add.__wrapped__)
    other = f.options(max_workers=2)
    assert other is not f
    assert other(1, 2) == 3
    assert other.__name__ == "add"
    assert f.map(range(9)).report.workers == 3
    assert other.map(range(9)).report.workers == 2
    assert other.map(range(9), max_workers=None).report.route == "threads"
    assert other.map(range(9), backend="serial").report.route == "loop"
    assert parallel(other, retries=1).map(range(9)).report.workers == 2


def test_options_of_a_method_keep_the_object():
    """Of a bound method, and of a class method."""
    assert Model(3).times.options(backend="threads").map([1, 2]) == [3, 6]
    assert Wider.over_class.options(backend="threads").map([1, 2]) == [5, 10]
    assert Model.times.options(backend="threads").map([Model(3)], [2]) == [6]


def test_explain_takes_the_options_that_it_knows():
    """The others do not matter to it."""
    report = parallel(backend="threads", retries=3, max_workers=2)(abs).explain(range(5))
    assert report.explained
    assert "threads" in str(report)


# -- pickling --------------------------------------------------------------------------------------

BY_NAME = {
    "function": jobs.square,
    "method": Model.times,
    "inner": Model.Inner.deep,
    "over static": Model.over_static,
    "under static": Model.under_static,
    "cached": jobs.cached,
    "cached over": jobs.cached_over,
}


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_by_reference(name, protocol):
    """What is importable comes back as itself."""
    f = BY_NAME[name]
    assert pickle.loads(pickle.dumps(f, protocol)) is f
    assert decode(encode(f).payload) is f
    assert copy.copy(f) is f
    assert copy.deepcopy(f) is f


def test_bound_by_reference():
    """A class method, and a method with its object; also one that a subclass overrides."""
    for bound in (Model.over_class, Wider.over_class):
        assert pickle.loads(pickle.dumps(bound)) == bound
        assert copy.deepcopy(bound) == bound
    wider = Wider(4)
    plain = Model.times.__get__(wider)
    assert (pickle.loads(pickle.dumps(plain))(2), plain(2)) == (8, 8)
    assert pickle.loads(pickle.dumps(wider.times))(2) == 800
    assert pickle.loads(pickle.dumps(wider.hidden()))(2) == -8
    assert copy.deepcopy(wider.times).__self__ is not wider
    assert copy.copy(wider.times) == wider.times


def test_with_other_options_by_value_but_the_function_by_reference():
    """They come along; the function is the module's own."""
    f = pickle.loads(pickle.dumps(jobs.add.options(max_workers=2, backend="threads")))
    assert f.__wrapped__ is jobs.add.__wrapped__
    assert f.map(range(5)).report.workers == 2


def test_local_functions_by_value():
    """With what they capture, recursion, options and names; by any pickler."""
    by = 3

    @parallel(max_workers=2)
    def local(x):
        "Adds."
        return x + by if x < 5 else local(x - 1)

    for pickled in (pickle.dumps(local), cloudpickle.dumps(local), encode(local).payload):
        f = pickle.loads(pickled)
        assert f is not local
        assert f(9) == local(9) == 7
        assert (f.__name__, f.__doc__) == ("local", "Adds.")
        assert f.map([1], backend="serial") == [4]
        assert repr(f).endswith("max_workers=2>")


MAIN = """
import functools, pickle, sys
import cloudpickle
from parallax import parallel
OFF = 5

@parallel
def fibonacci(n):
    "By its own name."
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@parallel
@functools.lru_cache
def cached(n):
    return n + OFF

class Model:
    factor = 3
    @parallel
    def times(self, x):
        return self.factor * fibonacci(x)
    @parallel
    @classmethod
    def over_class(cls, x):
        return cls.factor * x
    @parallel
    @staticmethod
    def over_static(x):
        return x + OFF

pickles = sys.argv[1:]
for f in (fibonacci, cached, Model().times, Model.over_class, Model.over_static):
    expected = [f(x) for x in range(8)]
    for backend in ("threads", "processes"):
        assert f.map(range(8), backend=backend) == expected, f
    assert f.starmap(((x,) for x in range(8)), backend="processes") == expected, f
    # Plain pickle sends the object of a method, which stays a matter of the script's.
    ways = (cloudpickle.dumps,) if hasattr(f, "__self__") else (pickle.dumps, cloudpickle.dumps)
    for dumps in ways:
        with open(pickles.pop(), "wb") as file:
            file.write(dumps((f, expected)))
assert not pickles
print("done")
"""

LOAD = """
import pickle, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        f, expected = pickle.load(file)
    assert [f(x) for x in range(8)] == expected, f
    assert f.map(range(8), backend="serial") == expected, f
    assert f.__name__
print("done")
"""


def run_script(tmp_path, text, *args):
    script = tmp_path / "script.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_functions_of_the_main_script_by_value(tmp_path):
    """In processes, and in pickles that another program loads: no import of the script."""
    names = [str(tmp_path / f"{number}.pickle") for number in range(8)]
    run_script(tmp_path, MAIN, *names)
    run_script(tmp_path, LOAD, *names)


@pytest.mark.slow
def test_a_decorated_function_costs_no_import_of_what_runs_it(tmp_path):
    """Workers import modules with decorated functions in order to call them."""
    run_script(
        tmp_path,
        "import sys\nfrom parallax import parallel\n@parallel\ndef f(x): return x\n"
        "class A:\n    @parallel\n    def m(self): return 1\n"
        "assert (f(1), A().m()) == (1, 1)\n"
        "bad = {'parallax._api.map', 'parallax._run.run', 'asyncio', 'cloudpickle'}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)\nprint('done')\n",
    )


# -- functions under decorators, by reference ------------------------------------------------------

HIDDEN = {
    "parallel": jobs.square.__wrapped__,
    "a user's": jobs.twice_traced.__wrapped__,
    "two": jobs.twice_traced.__wrapped__.__wrapped__,
    "cached": jobs.cached.__wrapped__,
    "in it": jobs.cached.__wrapped__.__wrapped__,
    "method": Model.times.__wrapped__,
    "over class": vars(Model)["over_class"].__func__.__wrapped__,
    "under class": vars(Model)["under_class"].__func__.__wrapped__,
    "over static": Model.over_static.__wrapped__,
    "private": Model().hidden().__func__,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_function_under_a_decorator_is_sent_by_reference(name):
    """Plain pickle refuses it; by value it would have globals of its own."""
    fn = HIDDEN[name]
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(fn)
    sent = encode((fn, [fn, lambda: fn], jobs.square))
    assert decode(encode(fn).payload) is fn
    back, (again, closure), f = decode(sent.payload, sent.buffers)
    assert back is again is closure() is fn
    assert f is jobs.square


def test_without_cloudpickle(tmp_path):
    """The way with the slow import is not taken for them."""
    run_script(
        tmp_path,
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom jobs import decorated as jobs\n"
        "from parallax._transport.codec import encode, decode\nfn = jobs.square.__wrapped__\n"
        "assert decode(encode((fn, 1)).payload) == (fn, 1)\n"
        "assert 'cloudpickle' not in sys.modules\nprint('done')\n",
    )


def test_a_function_that_no_decorator_leads_to_goes_by_value(monkeypatch):
    """Its module's name leads to another one, or nowhere, or to an endless chain."""
    fn = jobs.square.__wrapped__

    class Endless:
        @property
        def __wrapped__(self):
            return Endless()

    class Raising:
        @property
        def __wrapped__(self):
            raise RuntimeError("not now")

    for found in (jobs.add, len, Endless(), Raising(), None):
        monkeypatch.setattr(jobs, "square", found)
        sent = encode(fn)
        back = decode(sent.payload, sent.buffers)
        assert back is not fn
        assert back(3) == 9


def test_large_arrays_beside_such_a_function():
    """They travel out of band, all the same."""
    np = pytest.importorskip("numpy")
    array = np.arange(100_000.0)
    view = memoryview(bytearray(200_000))
    sent = encode((jobs.square.__wrapped__, array, view))
    assert len(sent.payload) < 10_000
    fn, back, seen = decode(bytes(sent.payload), [bytearray(b) for b in sent.buffers])
    assert fn is jobs.square.__wrapped__
    assert (back == array).all()
    assert seen == view


def test_a_decorator_that_is_missing_in_the_worker_is_an_error():
    """Rather than another function in the place of the one that was meant."""
    with pytest.raises(AttributeError, match="'square' with 5 decorators"):
        wrapped_functions.follow_wrapped("jobs.decorated", "square", 5)
    with pytest.raises(AttributeError, match="'gone'"):
        wrapped_functions.follow_wrapped("jobs.decorated", "gone", 0)
    with pytest.raises(ImportError):
        wrapped_functions.follow_wrapped("no_such_module_anywhere", "square", 1)


# -- the guard -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "target"),
    [
        (jobs.logged, "LOG"),
        (jobs.calls_logged, "LOG"),
        (jobs.maps_logged, "LOG"),
        (jobs.calls_method, "MODEL.seen"),
        (jobs.maps_method, "MODEL.seen"),
        (jobs.calls_super, "MODEL.seen"),
        (jobs.calls_class, "Model.made"),
        (jobs.MODEL.remember, "self.seen"),
        (Model.remembered, "self.made"),
    ],
)
def test_the_guard_looks_through(fn, target):
    """A decorated function does not hide what it changes, called or mapped."""
    effects = scan(fn, (1,))
    assert [finding.target for finding in effects.findings] == [target]
    assert not effects.opaque


def test_a_decorated_global_is_code_and_not_data():
    """Workers have it from its module; it is compared with theirs, and not sent with each call."""
    assert set(scan(jobs.fibonacci, (1,)).reads) == {("jobs.decorated", "fibonacci")}


def test_parallel_map_takes_decorated_functions_as_they_are():
    """It measures and names the user's function."""
    results = parallel_map(jobs.spinning_square, range(12))
    assert results == [x * x for x in range(12)]
    assert results.report.callable == "spinning_square"


def test_nothing_is_kept_of_functions_that_are_gone():
    """No registry holds them."""

    def make():
        @parallel
        def f(x):
            return x

        f.map([1])
        return weakref.ref(f)

    seen = make()
    gc.collect()
    assert seen() is None
