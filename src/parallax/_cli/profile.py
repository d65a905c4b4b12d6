"""``parallax profile``: runs a program and tells why it is not faster.

Guarantees: the program's output, status and behaviour are its own. The report comes after all of
it: after its threads and exit handlers, before an `os.exec` and an `os._exit`, and not at all from
a child or after the end by a signal.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys

from parallax._cli.profile_advice import advise
from parallax._cli.profile_report import ProgramReport
from parallax._cli.run_program import NoProgramError, load, run
from parallax._cli.terminal import bold, misuse, write
from parallax._core.cores import usable_cores
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.own_code import FOLDER
from parallax._profiling.program_profile import by_function, grouped, settle_all
from parallax._profiling.program_sampler import ProgramSampler

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._reporting import export
else:
    export = lazy_module("parallax._reporting.export")

#: Threads with less to show are left out of the report.
_MIN_SHOWN_S = 0.0005


def run_profile(options: argparse.Namespace) -> int:
    """Run the program; what it raises is raised. Returns 0, or 2 if there is no such program."""
    files = {k: v for k in ("json", "html", "output") if (v := getattr(options, k)) is not None}
    program = options.program
    library = os.path.dirname(os.__file__) + os.sep  # not sysconfig, which takes 3 ms to load
    try:
        start = load(program, options.arguments, module=options.module)
        watch = _Watch(ProgramSampler(run.__code__, (library, FOLDER, "<frozen")), program, files)
        watch.begin()
        run(start)
    except NoProgramError as error:
        atexit.unregister(watch.report) if options.module else None
        return misuse("profile", str(error))
    return 0


class _Watch:
    """The sampler of this process, and its end."""

    def __init__(self, sampler: ProgramSampler, program: str, files: dict[str, str]) -> None:
        self._sampler, self._program, self._files = sampler, program, files
        self._process = os.getpid()
        self._done = False

    def begin(self) -> None:
        atexit.register(self.report)  # the first to be registered is the last to be called
        sys.addaudithook(self._at_event)
        os._exit = self._before_exit(os._exit)  # type: ignore[assignment]
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._sampler.short_turns.end)
        self._sampler.start()

    def _at_event(self, event: str, _: object) -> None:
        if event == "os.exec":
            self.report()
        elif event != "os.fork":
            self._sampler.after_fork()

    def _before_exit(self, leave: Callable[[int], Any]) -> Callable[[int], Any]:
        def _exit(status: int) -> Any:
            self.report()
            leave(status)

        return _exit

    def report(self) -> None:
        """Stop and write the report, once and in the program's own process."""
        if self._done or os.getpid() != self._process:
            return
        self._done = True
        try:
            self._write_all(_make(self._sampler, self._program))
        except Exception as error:  # noqa: BLE001 - the program's exec or exit must not fail for it
            print(f"parallax profile: there is no report: {error!r}", file=sys.__stderr__)

    def _write_all(self, made: ProgramReport) -> None:
        files = self._files
        if "json" in files:
            write(made.to_dict(), files["json"])
        if "html" in files:
            export.write_shown(made.to_page(), files["html"])
        if "output" in files:
            write(made.text(str), files["output"])
            return
        stream = sys.__stderr__
        try:
            print(f"\n{made.text(lambda heading: bold(heading, stream))}", file=stream, flush=True)
        except (OSError, ValueError, AttributeError):
            pass  # nobody reads it


def _make(sampler: ProgramSampler, program: str) -> ProgramReport:
    end = sampler.finish()
    span, reading = sampler.curve[-1][0], sampler.gil(end)
    threads = [t for t in settle_all(sampler, span) if t.spent.seconds > _MIN_SHOWN_S]
    groups, cores = grouped(threads, span), usable_cores()
    missing = [] if sampler.waits_told else ["what threads wait for (GIL or something else)"]
    if sys.platform != "linux":
        missing += ["CPU time of each thread", "CPU time of child processes while they run"]
    curve = [
        (b[0], (b[1] - a[1]) / (b[0] - a[0]))
        for a, b in zip(sampler.curve, sampler.curve[1:])  # noqa: B905 - neighbours
        if b[0] > a[0]
    ]
    return ProgramReport(
        program=program,
        python=f"CPython {sys.version.split()[0]}",
        seconds=span,
        cpu_seconds=max(0.0, sampler.curve[-1][1] - sampler.children),
        child_cpu_seconds=sampler.children,
        by_child=sampler.by_child,
        cores=cores,
        cores_over_time=curve,
        gil=sampler.had_gil,
        gil_held=reading.held,
        gil_error=reading.error,
        threads=threads,
        functions=by_function(f for each in threads for f in each.functions),
        advice=advise(
            groups,
            span=span,
            children=sampler.children,
            by_child=sampler.by_child,
            cores=cores,
            gil=sampler.had_gil,
        ),
        missing=missing,
    )
