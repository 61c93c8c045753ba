"""The snapshot as a whole: complete, in time, explained, and cheap for whoever starts it."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runstone.capture import collect as collecting
from runstone.capture import snapshot, start_background
from runstone.capture.context import Context
from runstone.capture.facts import Facts, Missing, absent, explain

SECTIONS = (
    "rank identity process git python frameworks gpu os cpu memory cgroup limits disk container scheduler notebook env "
    "blas conda packages"
).split()


def _nulls(value: Any, path: str = "") -> Iterator[str]:
    if value is None:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield from _nulls(inner, f"{path}.{name}" if path else str(name))


def _above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def test_snapshot_of_this_machine_is_complete_within_5_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    found = snapshot(store=tmp_path, log_backend="mmap", writer="w")
    assert time.monotonic() - began < 5
    assert [name for name in found if name in SECTIONS] == SECTIONS
    assert found["schema"] == 1
    assert found["writer"] == "w"
    assert abs(found["captured_at"] - time.time()) < 60
    assert not [reason for reason in found["why"].values() if reason.startswith(("error", "timeout"))]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_each_null_has_a_reason_and_each_reason_a_null(tmp_path: Path) -> None:
    found = snapshot(store=tmp_path)
    why = found.pop("why")
    nulls = set(_nulls(found))
    assert [path for path in nulls if not any(place in why for place in _above(path))] == []
    assert [path for path in why if path not in nulls] == []
    for reason in why.values():
        assert reason.partition(": ")[0] in ("absent", "denied", "error", "timeout", "redacted")


def test_second_snapshot_of_a_process_reads_less(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot()
    read: list[str] = []
    for place, collector in enumerate(collecting._COLLECTORS):
        if collector.section in ("packages", "conda", "gpu", "os"):

            def note(facts: Facts, context: Context, *, name: str = collector.section) -> None:
                read.append(name)

            changed = collecting._Collector(collector.section, note, collector.same, collector.is_slow)
            all_of_them = [*collecting._COLLECTORS[:place], changed, *collecting._COLLECTORS[place + 1 :]]
            monkeypatch.setattr(collecting, "_COLLECTORS", tuple(all_of_them))
    assert snapshot()["packages"]["installed"]
    assert read == ["os"], "packages, conda and GPUs have not changed"


# --- facts ---------------------------------------------------------------------------------------------------
def test_reason_names_kind_and_detail() -> None:
    cases: list[tuple[Exception, str]] = [
        (FileNotFoundError(2, "No such file or directory", "/x"), "absent: /x: No such file or directory"),
        (PermissionError(13, "Permission denied", "/x"), "denied: /x: Permission denied"),
        (TimeoutError("git did not end in time"), "timeout: git did not end in time"),
        (KeyError("x"), "error: KeyError: 'x'"),
        (absent("unlimited"), "absent: unlimited"),
        (Missing("redacted", "off"), "redacted: off"),
        (ModuleNotFoundError("No module named 'x'"), "absent: ModuleNotFoundError: No module named 'x'"),
    ]
    for error, reason in cases:
        assert explain(error) == reason


def test_field_that_fails_costs_itself_only() -> None:
    facts = Facts("s")
    facts.read("a", lambda: 1)
    facts.read("b", lambda: 1 // 0)
    facts.read("c", lambda: None, if_none="nobody knows")
    part = facts.part("d")
    part.read("e", lambda: "x")
    item = facts.item("f")
    item.read("g", lambda: {}["h"])
    section = facts.close()
    assert section.values == {"a": 1, "b": None, "c": None, "d": {"e": "x"}, "f": [{"g": None}]}
    assert section.why == {
        "s.b": "error: ZeroDivisionError: integer division or modulo by zero",
        "s.c": "absent: nobody knows",
        "s.f.0.g": "error: KeyError: 'h'",
    }


def test_what_comes_after_the_end_goes_nowhere() -> None:
    facts = Facts("s")
    facts.put("a", 1)
    part = facts.part("p")
    section = facts.close(timeout_reason="timeout: no answer")
    facts.put("b", 2)
    part.put("c", 3)
    facts.item("d").put("e", 4)
    assert section.values == {"a": 1, "p": {}}
    assert section.why == {"s": "timeout: no answer"}
    assert not section.is_complete


def test_collector_that_hangs_is_given_up_and_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(facts: Facts, _: Context) -> None:
        facts.put("first", 1)
        facts.read("second", lambda: release.wait(60))

    def fail(facts: Facts, _: Context) -> None:
        raise RuntimeError("broken")

    collectors = [
        collecting._Collector("hangs", hang),
        collecting._Collector("hangs_long", hang, is_slow=True),
        collecting._Collector("fails", fail),
        *[collector for collector in collecting._COLLECTORS if collector.section == "os"],
    ]
    monkeypatch.setattr(collecting, "_COLLECTORS", tuple(collectors))
    began = time.monotonic()
    try:
        found = snapshot(timeout_s=2.0)
    finally:
        release.set()
    assert time.monotonic() - began < 2.5
    assert found["hangs"] == {"first": 1}
    assert found["why"]["hangs"] == "timeout: no answer within 1.0 s while reading hangs.second"
    assert found["why"]["hangs_long"].startswith("timeout: ")
    assert found["why"]["fails"] == "error: RuntimeError: broken"
    assert found["os"]["name"]


# --- in the background ---------------------------------------------------------------------------------------
def test_background_writes_the_files_of_its_writer(tmp_path: Path) -> None:
    work = start_background(tmp_path, "w1", log_backend="append")
    assert work.join()
    assert work.error is None
    found = json.loads((tmp_path / "environment.w1.json").read_bytes())
    assert found["writer"] == "w1"
    assert found["disk"]["store"]["path"] == str(tmp_path)
    assert found["disk"]["store"]["log_backend"] == "append"
    assert not list(tmp_path.glob("*.partial"))


def test_starting_costs_the_caller_less_than_a_millisecond(tmp_path: Path) -> None:
    start_background(tmp_path, "first").join()
    costs = []
    for number in range(7):
        began = time.thread_time()  # of this thread alone, whatever else the machine does
        work = start_background(tmp_path, f"w{number}")
        costs.append(time.thread_time() - began)
        work.join()
    assert statistics.median(costs) < 1e-3


def test_thread_leaves_the_program_its_time(tmp_path: Path) -> None:
    """Counts steps that need the interpreter again and again, as a training loop does, with and without the thread."""
    start_background(tmp_path, "first").join()

    def steps(until: Callable[[], bool]) -> float:
        count, began = 0, time.perf_counter()
        while not until():
            time.sleep(0)  # lets the interpreter go, as reading a file does
            sum(range(500))
            count += 1
        return count / (time.perf_counter() - began)

    rates = []
    for number in range(3):
        work = start_background(tmp_path, f"w{number}")
        busy = steps(lambda work=work: work.join(0))
        end = time.perf_counter() + 0.3
        rates.append(busy / steps(lambda end=end: time.perf_counter() > end))
    assert max(rates) > 0.4, rates


def test_run_folder_that_has_gone_is_an_error_to_ask_for(tmp_path: Path) -> None:
    work = start_background(tmp_path / "gone", "w")
    assert work.join()
    assert isinstance(work.error, FileNotFoundError)


def test_join_returns_in_time_and_says_whether_it_is_done(tmp_path: Path) -> None:
    work = start_background(tmp_path, "w")
    assert work.join(0) is False
    assert work.join() is True


def test_many_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    works = [start_background(tmp_path, f"w{number}") for number in range(8)]
    assert all(work.join(20) for work in works)
    for number in range(8):
        found = json.loads((tmp_path / f"environment.w{number}.json").read_bytes())
        assert found["writer"] == f"w{number}"
        assert found["packages"]["installed"]


def test_forked_child_takes_its_own_snapshot(tmp_path: Path, python: Callable[..., Any]) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    program = """
import os, sys, time, warnings
from pathlib import Path
from runstone.capture import start_background
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of every fork with threads
path = Path(sys.argv[1])
parent = start_background(path, "parent")
children = []
for number in range(12):
    time.sleep(0.012)  # at any moment of the parent's snapshot
    pid = os.fork()
    if pid == 0:
        assert parent.join(0.01)  # not a thread of this process
        child = start_background(path, f"child{number}")
        os._exit(0 if child.join(20) and child.error is None else 1)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert codes == [0] * 12, codes
assert parent.join(20)
"""
    done = python(program, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("environment.*.json"))) == 13


def test_driver_that_hangs_holds_up_neither_training_nor_exit(
    tmp_path: Path, fakenvml: Path, python: Callable[..., Any]
) -> None:
    (tmp_path / "nvml.conf").write_text("delay_us.nvmlInit 30000000\n")
    program = """
import sys, time
from pathlib import Path
from runstone.capture import start_background
began = time.monotonic()
work = start_background(Path(sys.argv[1]), "w")
steps, longest, last = 0, 0.0, began
while not work.join(0):
    sum(range(1000))
    now = time.monotonic()
    steps, longest, last = steps + 1, max(longest, now - last), now
print(steps, longest, time.monotonic() - began)
"""
    environment = {"FAKENVML": str(tmp_path / "nvml.conf"), "LD_LIBRARY_PATH": str(fakenvml)}
    began = time.monotonic()
    done = python(program, str(tmp_path), environment=environment)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 12, "the process waited for the driver"
    steps, longest, took = map(float, done.stdout.split())
    assert took < 6
    assert steps > 10_000
    assert longest < 0.5
    found = json.loads((tmp_path / "environment.w.json").read_bytes())
    assert found["why"]["gpu"].startswith("timeout: no answer within")
    assert found["packages"]["installed"]


@pytest.mark.parametrize(
    "environment",
    [{"HOME": "/nonexistent"}, {"HOME": ""}, {"LANG": "C", "LC_ALL": "C"}, {"PATH": ""}, {"TMPDIR": "/nonexistent"}],
    ids=["no such home", "no home", "language C", "no path", "no folder for temporary files"],
)
def test_odd_surroundings_do_not_matter(
    snapshot_of: Callable[..., dict[str, Any]], environment: dict[str, str]
) -> None:
    found = snapshot_of(environment=environment)
    assert found["packages"]["installed"]
    assert not [reason for reason in found["why"].values() if reason.startswith(("error", "timeout"))]
