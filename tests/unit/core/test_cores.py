"""Cores, memory, GIL and clocks: tables of odd systems, given as trees of files."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax._core import cores, memory, thread_clocks
from parallax._core.cgroups import CgroupReader
from parallax._core.cores import usable_cores
from parallax._core.memory import memory_available, memory_total

GIB = 1 << 30

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEM = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
OTHERS = "22 1 0:20 / / rw - overlay overlay rw\n24 22 0:5 / /proc rw - proc proc rw\n"
CPU = "sys/fs/cgroup/cpu,cpuacct"


@dataclass
class Case:
    name: str
    files: dict[str, str | bytes | None] = field(default_factory=dict)  # None: a folder
    mounts: str | None = V2
    group: str | None = "0::/\n"
    expect: float | None = None

    def build(self, root: Path) -> CgroupReader:
        files = dict(self.files)
        if self.mounts is not None:
            files["proc/self/mountinfo"] = OTHERS + self.mounts
        if self.group is not None:
            files["proc/self/cgroup"] = self.group
        for path, text in files.items():
            where = root / path
            where.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                where.mkdir()
            else:
                where.write_bytes(text if isinstance(text, bytes) else text.encode())
        return CgroupReader(root, ttl=0)


def ask_only(reader: CgroupReader, patch: pytest.MonkeyPatch) -> None:
    """Have what is asked for cores and memory read from a tree of files."""
    for module in (cores, memory):
        patch.setattr(module, "CGROUPS", reader)


def ids(case: Case) -> str:
    return case.name


def cpu_max(text: str | bytes, group: str = "") -> dict[str, str | bytes | None]:
    return {f"sys/fs/cgroup{group}/cpu.max": text}


CPU_CASES = [
    Case("no files at all", mounts=None, group=None),
    Case("no limit file"),
    Case("v2: max", cpu_max("max 100000\n")),
    Case("v2: two cores", cpu_max("200000 100000\n"), expect=2),
    Case("v2: one and a half", cpu_max("150000 100000\n"), expect=1.5),
    Case("v2: a tenth of a core", cpu_max("10000 100000\n"), expect=0.1),
    Case("v2: other period", cpu_max("30000 10000\n"), expect=3),
    Case("v2: period left out", cpu_max("300000"), expect=3),
    Case("v2: empty", cpu_max("")),
    Case("v2: blank lines", cpu_max("\n\n")),
    Case("v2: garbage", cpu_max("two cores\n")),
    Case("v2: bytes that are not text", cpu_max(b"\xff\xfe\x00\x80")),
    Case("v2: period 0", cpu_max("100000 0\n")),
    Case("v2: period garbage", cpu_max("100000 often\n")),
    Case("v2: quota 0", cpu_max("0 100000\n")),
    Case("v2: negative", cpu_max("-1 100000\n")),
    Case("v2: other digits", cpu_max("\u0663 100000\n")),
    Case("v2: endless number", cpu_max("9" * 10_000)),
    Case("v2: the file is a folder", {"sys/fs/cgroup/cpu.max": None}),
    Case("v2: sub-path", cpu_max("400000 100000", "/a/b"), group="0::/a/b\n", expect=4),
    Case(
        "v2: sub-path, limit of another group",
        cpu_max("100000 100000", "/other"),
        group="0::/a/b\n",
    ),
    Case(
        "v2: ancestor lower than leaf",
        cpu_max("800000 100000", "/slice/app")
        | cpu_max("250000 100000", "/slice")
        | cpu_max("max 100000"),
        group="0::/slice/app\n",
        expect=2.5,
    ),
    Case(
        "v2: leaf lower than ancestor",
        cpu_max("100000 100000", "/slice/app") | cpu_max("800000 100000", "/slice"),
        group="0::/slice/app\n",
        expect=1,
    ),
    Case(
        "v2: ancestor broken, root limited",
        cpu_max("", "/slice/app") | cpu_max("???", "/slice") | cpu_max("300000 100000"),
        group="0::/slice/app\n",
        expect=3,
    ),
    Case(
        "v2: a colon and a space in the group's name",
        cpu_max("200000 100000", "/a:b c"),
        group="0::/a:b c\n",
        expect=2,
    ),
    Case(
        "v2: mounted elsewhere, with a space",
        {"mnt/control groups/app/cpu.max": "200000 100000"},
        mounts="40 1 0:28 / /mnt/control\\040groups rw - cgroup2 none rw\n",
        group="0::/app\n",
        expect=2,
    ),
    Case(
        "v2 container: host path in /proc, mount root is that path",
        cpu_max("200000 100000"),
        mounts=V2.replace(" / /sys", " /docker/1f2e /sys"),
        group="0::/docker/1f2e\n",
        expect=2,
    ),
    Case(
        "v2 container: a group below the mount root",
        cpu_max("200000 100000", "/inner") | cpu_max("900000 100000"),
        mounts=V2.replace(" / /sys", " /docker/1f2e /sys"),
        group="0::/docker/1f2e/inner\n",
        expect=2,
    ),
    Case(
        "v2 container: host path not visible below the mount",
        cpu_max("200000 100000"),
        group="0::/docker/1f2e\n",
        expect=2,
    ),
    Case(
        "v2 container: mount root of some other group",
        cpu_max("200000 100000"),
        mounts=V2.replace(" / /sys", " /docker/9999 /sys"),
        group="0::/docker/1f2e\n",
        expect=2,
    ),
    Case(
        "v2: a similar name is not an ancestor",
        cpu_max("200000 100000"),
        mounts=V2.replace(" / /sys", " /docker/1f /sys"),
        group="0::/docker/1f2e\n",
        expect=2,
    ),
    Case(
        "v2: outside the namespace",
        cpu_max("200000 100000") | {"cpu.max": "100000 100000"},
        group="0::/../../init.scope\n",
        expect=2,
    ),
    Case("v2: no mount table", cpu_max("200000 100000"), mounts=None, expect=2),
    Case("v2: no group file", cpu_max("200000 100000"), group=None, expect=2),
    Case("v2: mount table garbage", cpu_max("200000 100000"), mounts="- \n\x00 - \n", expect=2),
    Case("v2: group file garbage", cpu_max("200000 100000"), group="::\nx\n0\n", expect=2),
    Case(
        "v1: limit",
        {f"{CPU}/cpu.cfs_quota_us": "350000\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
        mounts=V1_CPU,
        group="4:cpu,cpuacct:/\n",
        expect=3.5,
    ),
    Case(
        "v1: -1",
        {f"{CPU}/cpu.cfs_quota_us": "-1\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
        mounts=V1_CPU,
        group="4:cpu,cpuacct:/\n",
    ),
    Case(
        "v1: no period",
        {f"{CPU}/cpu.cfs_quota_us": "100000\n"},
        mounts=V1_CPU,
        group="4:cpu,cpuacct:/\n",
    ),
    Case(
        "v1: ancestor lower than leaf",
        {
            f"{CPU}/pod/one/cpu.cfs_quota_us": "-1",
            f"{CPU}/pod/one/cpu.cfs_period_us": "100000",
            f"{CPU}/pod/cpu.cfs_quota_us": "200000",
            f"{CPU}/pod/cpu.cfs_period_us": "100000",
        },
        mounts=V1_CPU,
        group="5:memory:/elsewhere\n4:cpu,cpuacct:/pod/one\n",
        expect=2,
    ),
    Case(
        "v1: cpuset is not cpu",
        {
            "sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpuset/cpu.cfs_period_us": "100000",
        },
        mounts="34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
        group="3:cpuset:/\n",
    ),
    Case(
        "v1 without a mount table",
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000",
        },
        mounts=None,
        group="1:cpu:/\n",
        expect=2,
    ),
    Case(
        "hybrid: the lower of both counts",
        {
            f"{CPU}/cpu.cfs_quota_us": "400000",
            f"{CPU}/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/app/cpu.max": "300000 100000",
        },
        mounts=V1_CPU + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        group="4:cpu,cpuacct:/\n0::/app\n",
        expect=3,
    ),
]


@pytest.mark.parametrize("case", CPU_CASES, ids=ids)
def test_cpu_limit_of_odd_cgroups(case: Case, tmp_path: Path) -> None:
    assert case.build(tmp_path).cpu_limit() == case.expect


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_a_limit_that_may_not_be_read_is_no_limit(tmp_path: Path) -> None:
    reader = Case("", cpu_max("100000 100000")).build(tmp_path)
    (tmp_path / "sys/fs/cgroup/cpu.max").chmod(0)
    assert reader.cpu_limit() is None


def test_a_limit_whose_reading_fails_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Case("", cpu_max("100000 100000")).build(tmp_path)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert reader.cpu_limit() is None
    assert reader.memory_limit() is None


@given(
    max_text=st.binary(max_size=64), mounts=st.binary(max_size=200), group=st.binary(max_size=64)
)
def test_no_file_content_makes_it_raise(
    tmp_path_factory: pytest.TempPathFactory, max_text: bytes, mounts: bytes, group: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "garbage"
    for path, text in {
        "sys/fs/cgroup/cpu.max": max_text,
        "sys/fs/cgroup/memory.max": max_text,
        "sys/fs/cgroup/memory.stat": max_text,
        "proc/self/mountinfo": mounts,
        "proc/self/cgroup": group,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        ask_only(CgroupReader(root, ttl=0), patch)
        assert usable_cores() >= 1
        assert memory_total() >= 0
        assert memory_available() >= 0


def test_the_cpu_limit_is_kept_for_its_time_and_then_read_again(tmp_path: Path) -> None:
    now = 100.0
    Case("", cpu_max("200000 100000")).build(tmp_path)
    reader = CgroupReader(tmp_path, ttl=1.0, clock=lambda: now)
    assert reader.cpu_limit() == 2
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("500000 100000")
    now = 100.9
    assert reader.cpu_limit() == 2
    now = 101.1
    assert reader.cpu_limit() == 5
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("max 100000")
    now = 50.0  # A clock that was set back must not keep the answer for ever.
    assert reader.cpu_limit() is None


# --- usable cores ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("affinity", "cpu_max_text", "expect"),
    [
        (8, "max 100000", 8),
        (8, "150000 100000", 2),
        (8, "200000 100000", 2),
        (8, "200001 100000", 3),
        (8, "1000 100000", 1),
        (2, "800000 100000", 2),
        (1, "", 1),
    ],
)
def test_usable_cores_is_the_lowest_of_all(
    affinity: int,
    cpu_max_text: str,
    expect: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Case("", cpu_max(cpu_max_text)).build(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(affinity)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    ask_only(reader, monkeypatch)
    assert usable_cores() == expect


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_is_asked_again_at_every_call() -> None:
    answers = []

    def narrow() -> None:  # In a thread, whose mask ends with it.
        answers.append(usable_cores())
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        answers.append(usable_cores())

    thread = threading.Thread(target=narrow)
    thread.start()
    thread.join()
    assert answers == [usable_cores(), 1]


@pytest.mark.parametrize("answer", [OSError("no"), set()])
def test_cores_without_an_affinity_mask_are_the_installed_ones(
    answer: Exception | set[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ask(_pid: int) -> set[int]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(os, "sched_getaffinity", ask, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _name: 5, raising=False)
    ask_only(CgroupReader(tmp_path), monkeypatch)
    assert usable_cores() == 5


def test_cores_are_never_below_one_when_nothing_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(_name: object) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "sysconf", unknown, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    ask_only(CgroupReader(tmp_path), monkeypatch)
    assert usable_cores() == 1


@pytest.mark.skipif(sys.version_info < (3, 13), reason="-X cpu_count came with 3.13")
@pytest.mark.parametrize(("flags", "variable"), [(("-X", "cpu_count=1"), ""), ((), "1")])
def test_pythons_own_cpu_count_limits(flags: tuple[str, ...], variable: str) -> None:
    code = "import parallax._core.cores as m; print(m.usable_cores())"
    env = os.environ | ({"PYTHON_CPU_COUNT": variable} if variable else {})
    assert _python(*flags, "-c", code, env=env) == "1"


# --- memory ------------------------------------------------------------------------------------


MEMORY_CASES = [
    (Case("no files", mounts=None, group=None), None, None),
    (Case("v2: max", {"sys/fs/cgroup/memory.max": "max\n"}), None, None),
    (Case("v2: empty", {"sys/fs/cgroup/memory.max": ""}), None, None),
    (
        Case(
            "v2: limit, usage and droppable cache",
            {
                "sys/fs/cgroup/memory.max": str(4 * GIB),
                "sys/fs/cgroup/memory.current": str(3 * GIB),
                "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nfile 9\n",
            },
        ),
        4 * GIB,
        3 * GIB,
    ),
    (
        Case(
            "v2: ancestor tighter, leaf fuller",
            {
                "sys/fs/cgroup/a/b/memory.max": str(8 * GIB),
                "sys/fs/cgroup/a/b/memory.current": str(7 * GIB),
                "sys/fs/cgroup/a/memory.max": str(6 * GIB),
                "sys/fs/cgroup/a/memory.current": str(1 * GIB),
            },
            group="0::/a/b\n",
        ),
        6 * GIB,
        1 * GIB,
    ),
    (
        Case(
            "v2: high below max",
            {
                "sys/fs/cgroup/memory.max": str(4 * GIB),
                "sys/fs/cgroup/memory.high": str(3 * GIB),
                "sys/fs/cgroup/memory.current": str(1 * GIB),
            },
        ),
        3 * GIB,
        2 * GIB,
    ),
    (
        Case(
            "v2: over its limit",
            {"sys/fs/cgroup/memory.max": str(GIB), "sys/fs/cgroup/memory.current": str(2 * GIB)},
        ),
        GIB,
        0,
    ),
    (
        Case(
            "v2: usage cannot be read",
            {"sys/fs/cgroup/memory.max": str(GIB), "sys/fs/cgroup/memory.current": "?"},
        ),
        GIB,
        GIB,
    ),
    (
        Case(
            "v1",
            {
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(2 * GIB),
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(GIB),
                "sys/fs/cgroup/memory/job/memory.stat": f"cache 1\ntotal_inactive_file {GIB // 2}",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            mounts=V1_MEM,
            group="4:memory:/job\n",
        ),
        2 * GIB,
        GIB + GIB // 2,
    ),
]


@pytest.mark.parametrize(
    ("case", "limit", "left"), MEMORY_CASES, ids=lambda v: getattr(v, "name", "")
)
def test_memory_limits(case: Case, limit: int | None, left: int | None, tmp_path: Path) -> None:
    reader = case.build(tmp_path)
    assert reader.memory_limit() == limit
    assert reader.memory_available() == left


def test_memory_is_the_lower_of_machine_and_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_only(CgroupReader(tmp_path / "nothing"), monkeypatch)
    assert 0 < memory_available() <= memory_total()
    small = Case("", {"sys/fs/cgroup/memory.max": "4096"}).build(tmp_path)
    ask_only(small, monkeypatch)
    assert memory_total() == 4096
    assert memory_available() == 4096


def test_memory_without_sysconf_comes_from_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    expect = memory_total()
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert memory_total() == pytest.approx(expect, rel=0.1)


# --- the interpreter and its threads -----------------------------------------------------------


def test_gil_is_asked_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (False, True, False):
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda answer=answer: answer, raising=False)
        assert cores.gil_enabled() is answer
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert cores.gil_enabled() is True


def test_free_threaded_build_agrees_with_the_build() -> None:
    code = "import sysconfig; print(bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    assert str(cores.free_threaded_build()) == _python("-c", code)
    if not cores.free_threaded_build():
        assert cores.gil_enabled()


@pytest.mark.parametrize(
    ("platform", "expect"),
    [
        ("linux", ("zygote", "spawn")),
        ("darwin", ("spawn",)),
        ("win32", ("spawn",)),
        ("emscripten", ()),
    ],
)
def test_start_methods(
    platform: str, expect: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert cores.start_methods() == expect


@pytest.mark.parametrize(
    ("load", "expect"), [((6.0, 1.0, 1.0), 1.5), (OSError(), None), (None, None)]
)
def test_load_per_core(load: object, expect: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> object:
        if isinstance(load, Exception):
            raise load
        return load

    monkeypatch.setattr(os, "sysconf", lambda _name: 4, raising=False)
    if load is None:
        monkeypatch.delattr(os, "getloadavg", raising=False)
    else:
        monkeypatch.setattr(os, "getloadavg", ask, raising=False)
    assert cores.load_per_core() == expect


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="not on this platform")
def test_the_clock_of_another_thread_counts_its_work_only() -> None:
    work, worked, leave = threading.Event(), threading.Event(), threading.Event()

    def run() -> None:
        work.wait()
        while time.thread_time() < 0.05:
            pass
        worked.set()
        leave.wait()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert thread.ident is not None
        clock = thread_clocks.thread_cpu_clock(thread.ident)
        assert clock is not None
        start = clock()
        assert 0 <= start < 0.04
        work.set()
        worked.wait()
        assert clock() - start > 0.01
        waiting = clock()
        while time.thread_time() < 0.01:  # Our own work is not that thread's.
            pass
        assert clock() - waiting < 0.02
    finally:
        work.set()
        leave.set()
        thread.join()
    after = clock()
    assert after >= 0.05 - thread_clocks.clock_tick()
    assert clock() == after, "the clock of a thread that has ended stands still"


def test_no_clock_for_a_thread_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert thread_clocks.thread_cpu_clock(12345) is None
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()
    assert ended.ident is not None
    assert thread_clocks.thread_cpu_clock(ended.ident) is None
    monkeypatch.delattr(time, "pthread_getcpuclockid", raising=False)
    assert thread_clocks.thread_cpu_clock(threading.get_ident()) is None


def test_clock_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < thread_clocks.clock_tick() <= 0.0157
    monkeypatch.setattr(sys, "platform", "win32")
    assert thread_clocks.clock_tick() == 0.015625


def test_importing_it_is_cheap() -> None:
    code = (
        "import os, sys, parallax._core.light_stdlib; before = set(sys.modules); "
        "import parallax._core.cores; print(sorted(set(sys.modules) - before))"
    )
    # -S: an editable install may itself load modules through a .pth file.
    loaded = _python("-S", "-c", code, env=os.environ | {"PYTHONPATH": str(_source())})
    assert set(ast.literal_eval(loaded)) <= {
        "__future__",
        "parallax._core",
        "parallax._core.cgroups",
        "parallax._core.cores",
    }


def test_the_real_machine_answers() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert memory_total() >= memory_available() > 0


def _source() -> Path:
    return Path(cores.__file__).parents[2]


def _python(*arguments: str, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
