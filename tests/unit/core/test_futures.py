"""Futures whose condition is made late: everybody who comes while they end is told, once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
import traceback
import weakref
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, CancelledError, as_completed, wait

import pytest

from parallax._core.futures import Future

ROUNDS = 300


class Owner:
    """A helper that never helps."""

    def __init__(self):
        self.lock = threading.RLock()
        self.withdrawn = []
        self.killed = []

    def help(self, future, timeout):
        return timeout

    def withdraw(self, future):
        self.withdrawn.append(future)

    def kill(self, future):
        self.killed.append(future)


class Answering(Owner):
    """A helper that finishes what is asked for."""

    def __init__(self, value=None, error=None):
        super().__init__()
        self.outcome = value, error

    def help(self, future, timeout):
        if not future.done() and future.begin():
            future.settle(*self.outcome)
        return timeout


@pytest.fixture
def owner():
    """Who will finish the futures of a test."""
    return Owner()


@pytest.fixture
def eager():
    """Threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def together(*actions):
    """Run each in a thread of its own, all at once; what they returned."""
    barrier = threading.Barrier(len(actions))
    results = [None] * len(actions)
    errors = []

    def run(number, action):
        barrier.wait()
        try:
            results[number] = action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def finish(future, value=None, error=None):
    if future.begin():
        future.settle(value, error)


# -- one thread ------------------------------------------------------------------------------------


def test_it_is_the_standard_librarys(owner):
    """Code that asks for the type gets the answer that it expects."""
    assert isinstance(Future(owner), concurrent.futures.Future)


def test_states(owner):
    """As the standard library tells them."""
    future = Future(owner)
    assert (future.done(), future.running(), future.cancelled()) == (False, False, False)
    assert "pending" in repr(future)
    assert future.begin()
    assert (future.done(), future.running(), future.cancelled()) == (False, True, False)
    assert not future.cancel()
    future.settle(3, None)
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert "finished returned int" in repr(future)
    assert not future.cancel()
    assert (future.result(), future.exception()) == (3, None)
    assert not hasattr(future, "nothing")


def test_a_cancelled_future(owner):
    """It cannot begin, says so to all who ask, and its owner knows."""
    future = Future(owner)
    assert future.cancel()
    assert future.cancel()
    assert owner.withdrawn == [future]
    assert not future.begin()
    assert future.cancelled()
    assert future.done()
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()
    assert wait([future], timeout=0).done == {future}


def test_a_revoked_future(owner):
    """One that runs is cancelled as well; its owner ends it, and what it returns is dropped."""
    waiting, running, ended = (Future(owner) for _ in range(3))
    seen = []
    running.add_done_callback(seen.append)
    assert waiting.revoke()
    assert (owner.withdrawn, owner.killed) == ([waiting], [])
    assert running.begin()
    assert running.revoke()
    assert running.revoke()
    assert (owner.killed, seen) == ([running], [running])
    running.settle(3, None)
    running.settle(None, KeyError(3))
    assert running.cancelled()
    assert (running._result, running._exception) == (None, None)
    for ask in (running.result, running.exception):
        with pytest.raises(CancelledError):
            ask()
    finish(ended, 3)
    assert not ended.revoke()
    assert ended.result() == 3


def test_retries(owner):
    """They are counted, and only for failures of a call that somebody still wants."""
    future = Future(owner)
    assert not future.again(KeyError())
    future.retries = 2
    future.begin()
    assert [future.again(KeyError()) for _ in range(3)] == [True, True, False]
    future.retries = 2
    assert not future.again(SystemExit())
    future.revoke()
    assert not future.again(KeyError())


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_a_result_that_does_not_come_in_time(owner, timeout):
    """The standard library's error, and nothing changes."""
    future = Future(owner)
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(timeout)
    finish(future, 1)
    assert future.result(timeout) == 1


def test_the_helper_answers():
    """Who asks may get the result by its own work."""
    assert Future(Answering(value=5)).result() == 5
    error = ValueError("no")
    assert Future(Answering(error=error)).exception() is error
    with pytest.raises(ValueError, match="no"):
        Future(Answering(error=error)).result(1)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, StopIteration])
def test_errors_are_raised_as_they_are(owner, kind):
    """Whatever their class."""
    future = Future(owner)
    finish(future, error=kind("why"))
    for _ in range(2):
        with pytest.raises(kind, match="why"):
            future.result()


def test_callbacks(owner, caplog):
    """Called once with the future, at once if it has ended; one that fails harms no other."""
    for end in (lambda f: finish(f, 1), Future.cancel):
        future = Future(owner)
        seen = []
        future.add_done_callback(seen.append)
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(seen.append)
        end(future)
        future.add_done_callback(seen.append)
        assert seen == [future] * 3
        assert "ZeroDivisionError" in caplog.text
        caplog.clear()


class Late(Owner):
    """A helper that has it finished by another thread, a little later."""

    def help(self, future, timeout):
        self.thread = threading.Timer(0.01, finish, (future, None, ValueError("no")))
        self.thread.start()
        return timeout


@pytest.mark.parametrize(
    "helper", [Late(), Answering(error=ValueError("no"))], ids=["waits", "helps"]
)
def test_an_error_does_not_keep_the_future_alive(helper):
    """The frames in its traceback let go of the future, so that no collector is needed."""
    futures = [Future(helper)]
    gone = weakref.ref(futures[0])
    gc.disable()
    try:
        try:
            futures.pop().result()
        except ValueError as error:
            caught = error
        if isinstance(helper, Late):
            helper.thread.join()
            del helper.thread
        assert len(list(traceback.walk_tb(caught.__traceback__))) > 1
        assert gone() is None
    finally:
        gc.enable()


def test_asyncio(owner):
    """An event loop waits for it, and cancels it."""

    async def main():
        first, second, third = Future(owner), Future(owner), Future(owner)
        wrapped = [asyncio.wrap_future(f) for f in (first, second, third)]
        thread = threading.Thread(
            target=lambda: [finish(first, 1), finish(second, None, OSError())]
        )
        thread.start()
        assert await wrapped[0] == 1
        with pytest.raises(OSError, match=r"^$"):
            await wrapped[1]
        wrapped[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped[2]
        await asyncio.sleep(0)
        assert third.cancelled()
        thread.join()

    asyncio.run(main())


# -- several threads -------------------------------------------------------------------------------


def test_waiters_meet_the_end(owner, eager):
    """Whoever asks while it ends gets the result, in every order of events."""
    for number in range(ROUNDS):
        future = Future(owner)
        got = together(
            future.result,
            lambda f=future, n=number: finish(f, n),
            lambda f=future: f.result(10),
            lambda f=future: f.exception(10),
        )
        assert got == [number, None, number, None]


def test_callbacks_meet_the_end(owner, eager):
    """A callback that is added while the future ends is called exactly once."""
    for _ in range(ROUNDS):
        future = Future(owner)
        first, second = [], []
        together(
            lambda f=future, s=first: f.add_done_callback(s.append),
            lambda f=future: finish(f, 1),
            lambda f=future, s=second: f.add_done_callback(s.append),
        )
        assert first == second == [future]


def test_only_one_wins(owner, eager):
    """Of a cancellation and an end one happens, and all who ask agree on which."""
    for _ in range(ROUNDS):
        future = Future(owner)
        seen = []
        future.add_done_callback(seen.append)

        def begin(f=future):
            with owner.lock:
                begun = f.begin()
            if begun:
                f.settle(1, None)
            return begun

        first, begun, second = together(future.cancel, begin, future.cancel)
        assert begun is not (first or second)
        assert first == second or begun
        assert future.cancelled() is not begun
        assert seen == [future]


def test_a_revocation_meets_the_end(owner, eager):
    """One of both happens; waiters and callbacks are told once, and agree on which."""
    for _ in range(ROUNDS):
        future = Future(owner)
        future.begin()
        seen = []
        future.add_done_callback(seen.append)
        revoked, _, done = together(
            future.revoke,
            lambda f=future: f.settle(1, None),
            lambda f=future: wait([f], timeout=10).done,
        )
        assert revoked is future.cancelled()
        assert done == {future}
        assert seen == [future]
        assert revoked or future.result() == 1


@pytest.mark.parametrize("cancel", [False, True], ids=["finish", "cancel"])
def test_wait_counts_each_once(owner, eager, cancel):
    """A future that ends while somebody begins to wait is not counted twice.

    If it were, ``wait`` would return while another one is not done.
    """
    for _ in range(ROUNDS):
        quick, slow = Future(owner), Future(owner)
        end = quick.cancel if cancel else lambda f=quick: finish(f, 1)
        done = threading.Event()

        def watch(futures=(quick, slow), done=done):
            done.wait(0.001)
            return wait(futures, return_when=ALL_COMPLETED, timeout=10)

        def last(f=slow, done=done):
            done.set()
            finish(f, 2)

        result, *_ = together(watch, end, last)
        assert result.done == {quick, slow}
        assert not result.not_done


@pytest.mark.parametrize("cancel", [False, True], ids=["finish", "cancel"])
def test_as_completed_yields_each_once(owner, eager, cancel):
    """Nor is it yielded twice."""
    for _ in range(ROUNDS):
        futures = [Future(owner) for _ in range(4)]

        def end(futures=futures):
            for future in futures:
                if cancel:
                    future.cancel()
                else:
                    finish(future, 1)

        got, _ = together(lambda fs=futures: list(as_completed(fs, timeout=10)), end)
        assert sorted(map(id, got)) == sorted(map(id, futures))


def test_first_completed(owner):
    """One of many is enough."""
    futures = [Future(owner) for _ in range(5)]
    result, _ = together(
        lambda: wait(futures, return_when=FIRST_COMPLETED, timeout=10),
        lambda: finish(futures[3], 1),
    )
    assert result.done == {futures[3]}
    assert result.not_done == {*futures} - {futures[3]}


class Slow(Future):
    """One whose end can be stopped between its two steps, where threads meet."""

    def __setattr__(self, name, value):
        if name == "_state" and value == "FINISHED" and "between" in self.__dict__:
            self.__dict__.pop("between")()
        super().__setattr__(name, value)


def test_who_comes_between_the_two_steps_of_the_end(owner):
    """The result is there and the state is not: all who come then see that it is over."""
    future, other = Slow(owner), Future(owner)
    seen = []

    def between():
        future.add_done_callback(seen.append)
        seen.append(wait([future, other], timeout=0, return_when=FIRST_COMPLETED).done)
        seen.append(next(as_completed([future])))
        seen.append(future.result(0))

    future.between = between
    finish(future, 7)
    assert seen == [future, {future}, future, 7]
    assert future.result() == 7
