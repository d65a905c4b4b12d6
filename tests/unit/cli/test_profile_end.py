"""The end of a profile, where the program must not be disturbed any more."""

from __future__ import annotations

from typing import Any

import pytest

from parallax._cli.profile import _Watch


class Broken:
    def __init__(self) -> None:
        self.asked = 0

    def finish(self) -> Any:
        self.asked += 1
        raise ZeroDivisionError("of the sampler")


def test_a_report_that_fails_is_one_line_and_no_exception(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler: Any = Broken()
    watch = _Watch(sampler, "program", {})
    ended = []
    leave = watch._before_exit(ended.append)
    leave(5)  # as `os._exit`
    watch._at_event("os.exec", ())
    assert ended == [5]
    assert sampler.asked == 1, "once"
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "of the sampler" in err


def test_a_child_writes_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler: Any = Broken()
    watch = _Watch(sampler, "program", {})
    monkeypatch.setattr("os.getpid", lambda: -1)
    watch.report()
    assert sampler.asked == 0
