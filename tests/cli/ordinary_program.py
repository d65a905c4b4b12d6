"""A program that does much of what programs do, and ends as its first argument says."""

import atexit
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

DATA = bytes(200_000)
END = time.perf_counter() + 0.4


def later(gone):
    gone.wait(0.05)
    print("thread", threading.current_thread().name)


class Last:
    def __del__(self):
        print("deleted")


def fork_and_wait():
    sys.stdout.flush()
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            print("child", len(threading.enumerate()))
            sys.exit(3)
        print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def signals():
    signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    signal.pause()
    # Not for a thread that the program does not know: it would end the program.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    print("waited for", signal.sigwait({signal.SIGUSR1}))


def look():
    here = sys.modules["__main__"]
    print(sys.argv, sys.path[0], __name__, __spec__, vars(here) is globals())
    print(sorted(name for name in globals() if name.startswith("__")))
    # Asked for while it may be shorter for a look at who holds the GIL.
    seen = set()
    while time.perf_counter() < END:
        hashlib.sha256(DATA)
        sum(range(2000))
        seen.add(sys.getswitchinterval())
    sys.setswitchinterval(0.004)
    print(seen, sys.getswitchinterval(), signal.getsignal(signal.SIGINT), sys.gettrace())
    print([each.name for each in threading.enumerate()], threading.active_count())
    print("read", sys.stdin.read())
    print(subprocess.run(["cat"], input=b"piped", stdout=subprocess.PIPE, check=True).stdout)


def pool():
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as workers:
        print(workers.map(abs, [-1, -2]))


def failing_exec():
    try:
        os.execv("/nonexistent", ["nothing"])
    except OSError as error:
        print(error)


def end(how):
    sys.stdout.flush()
    if how == "raise":
        try:
            raise KeyError(1)
        except KeyError as error:
            raise RuntimeError("as it is") from error
    if how == "number":
        sys.exit(7)
    if how == "text":
        sys.exit("last words")
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    if how == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "at once":
        os._exit(5)
    if how == "exec":
        os.execv(sys.executable, [sys.executable, "-c", "print('another program')"])
    if how == "hook":
        sys.excepthook = lambda kind, *_: print("hook", kind)
        raise ValueError("for the hook")


if __name__ == "__main__":
    atexit.register(print, "at exit")
    if sys.argv[1] == "everything":
        last = Last()
        look()
        fork_and_wait()
        pool()
        signals()
        failing_exec()
        threading.Thread(target=later, args=(threading.Event(),)).start()
    end(sys.argv[1])
