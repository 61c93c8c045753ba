"""What a program prints: passed on unchanged, and kept."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runstone.cli.main import run as command
from runstone.console import ConsoleTail, console_lines, console_text
from runstone.console.lines import WINDOW, Lines
from runstone.console.store import Bounds, ConsoleStore
from tests.launch.conftest import RUN
from tests.launch.terminal import Terminal

Script = Callable[..., str]


def as_text(*chunks: bytes) -> str:
    kept: list[bytes] = []
    lines = Lines(lambda _stream, data, _at: kept.append(data))
    for chunk in chunks:
        lines.feed(1, chunk, 0.0)
    lines.close()
    return b"".join(kept).decode()


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"one\ntwo\r\nthree", "one\ntwo\nthree"),
        (b"\r 10%\r 50%\r100%\ndone\n", "100%\ndone\n"),
        (b"50%\r", "50%"),
        (b"50%\r\r\n\n", "50%\n\n"),
        (b"abc\x08\x08d\n", "ad\n"),
        (b"\x1b[31mred\x1b[0m\n", "\x1b[31mred\x1b[0m\n"),
        (b"\x1b[?25lx\x1b[2K\ry\x1b[K\n\x1b[?25h", "y\n"),
        # two bars, as tqdm moves between them
        (b"a: 1\n\rb: 1\x1b[A\n\rb: 2\x1b[A\ra: 2\n\rb: 3\n", "a: 2\nb: 3\n"),
        # a table that is drawn anew, as rich does
        (b"1\n2\n3\n\x1b[3A\r\x1b[2K4\n\r\x1b[2K5\n\r\x1b[2K6\nend\n", "4\n5\n6\nend\n"),
        (b"\xff\x00\x01\n", None),
    ],
)
def test_lines_are_kept_as_a_terminal_leaves_them_however_they_come(written: bytes, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(UnicodeDecodeError):
            as_text(written)
        return
    assert as_text(written) == kept
    assert as_text(*(bytes([byte]) for byte in written)) == kept
    for cut in range(1, len(written)):
        assert as_text(written[:cut], written[cut:]) == kept


def test_streams_are_kept_in_the_order_of_their_lines() -> None:
    kept: list[tuple[int, bytes]] = []
    lines = Lines(lambda stream, data, _at: kept.append((stream, data)))
    lines.feed(2, b"bar 1", 0.0)
    lines.feed(1, b"out 1\nout", 0.0)
    lines.feed(2, b"\rbar 2\n", 1.0)
    lines.feed(1, b" 2\n", 2.0)
    lines.close()
    assert kept == [(1, b"out 1\n"), (2, b"bar 2\n"), (1, b"out 2\n")]


def test_only_so_many_lines_can_be_gone_back_to() -> None:
    text = b"".join(b"%d\n" % n for n in range(WINDOW + 20))
    found = as_text(*text.splitlines(keepends=True), b"\x1b[%dA\rx" % (WINDOW + 20)).split("\n")
    assert found.count("x") == 1
    assert found[:10] == [str(n) for n in range(10)]


# --- the store --------------------------------------------------------------------------------------------------------


def test_the_beginning_and_the_end_of_much_text_are_kept(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path, "ab", bounds=Bounds(first_bytes=1000, part_bytes=500, parts=2))
    for n in range(2000):
        store.feed(1, b"line %05d\n" % n)
        if n % 10 == 0:
            store.flush()
    store.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) < 2500
    lines = console_text(tmp_path).splitlines()
    gap = next(place for place, line in enumerate(lines) if "left out" in line)
    assert lines[:gap] == [f"line {n:05d}" for n in range(gap)]
    after = lines[gap + 1 :]
    assert gap >= 80
    assert len(after) >= 40
    assert after == [f"line {n:05d}" for n in range(2000 - len(after), 2000)]
    assert lines[gap] == f"[… {11 * (2000 - gap - len(after)):,} bytes were left out …]"


def test_each_line_has_its_time_and_its_stream(tmp_path: Path) -> None:
    now = [100.0]
    store = ConsoleStore(tmp_path, "ab", clock=lambda: now[0])
    for at, stream, text in [(100.0, 1, b"a\nb\n"), (100.01, 2, b"c\n"), (100.02, 1, b"d\n"), (103.0, 1, b"e")]:
        now[0] = at
        store.feed(stream, text)
        store.flush()
    assert console_text(tmp_path) == "a\nb\nc\nd\ne\n"  # also what may still change can be seen
    store.close()
    assert [(line.text, line.at, line.stream) for line in console_lines(tmp_path)] == [
        ("a", 100.0, 1), ("b", 100.0, 1), ("c", 100.01, 2), ("d", 100.02, 1), ("e", 103.0, 1),
    ]  # fmt: skip
    assert store.tail(1) == "a\nb\nd\ne"


def test_a_progress_bar_is_seen_while_it_moves_and_kept_once(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path, "ab")
    for percent in range(100):
        store.feed(2, b"\r%d%%" % percent)
        if percent in (40, 99):
            store.flush()
            assert console_text(tmp_path) == f"{percent}%\n"
    store.close()
    assert [path.stat().st_size for path in tmp_path.glob("*.log")] == [3]


def test_a_full_disk_costs_text_and_nothing_else(tmp_path: Path) -> None:
    store = ConsoleStore(tmp_path / "gone", "ab")
    store.feed(1, b"lost\n")
    store.close()
    assert isinstance(store.trouble, FileNotFoundError)


def test_a_console_is_followed_by_whole_lines(tmp_path: Path) -> None:
    store, tail = ConsoleStore(tmp_path, "ab"), ConsoleTail(tmp_path)
    seen = []
    for text in (b"one\ntw", b"o\nthree\n", b"four"):
        store.feed(1, text)
        store.flush()
        seen.append([line.text for line in tail.poll()])
    store.close()
    assert seen == [["one"], ["two", "three"], []]
    assert [line.text for line in tail.poll(is_ended=True)] == ["four"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_output_passes_unchanged_and_is_kept_with_its_stream(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import os, sys
        print("out", sys.stdout.isatty(), sys.stderr.isatty(), flush=True)
        os.write(2, b"err\\n")
        os.write(1, bytes(range(256)) + b"\\n\\xff\\xfe no newline")
        """
    )
    done = launched(name)
    assert done.out == b"out False False\n" + bytes(range(256)) + b"\n\xff\xfe no newline"
    assert done.err == b"err\n"
    kept = {(line.text, line.stream) for line in console_lines(done.run.path)}
    assert {("out False False", 1), ("err", 2), ("\ufffd\ufffd no newline", 1)} <= kept


def test_two_outputs_that_go_to_one_place_keep_their_order(script: Script, home: Path) -> None:
    name = script("import os\nfor n in range(300): os.write(1 + n % 2, b'%d\\n' % n)")
    done = subprocess.run([*RUN, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, timeout=60)
    assert done.stdout == b"".join(b"%d\n" % n for n in range(300))


def test_output_comes_at_once(script: Script) -> None:
    name = script("import sys\nprint('first', flush=True)\nsys.stdin.readline()\nprint('second')")
    with subprocess.Popen([*RUN, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"first\n"  # while it waits for us: nothing is held back
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.read() == b"second\n"
        assert process.wait(30) == 0


def test_a_hundred_megabytes_pass_and_twenty_are_kept(script: Script, home: Path, tmp_path: Path) -> None:
    name = script(
        """
        import os
        block = b"".join(b"%09d\\n" % n for n in range(10_000))
        for n in range(1000):
            left = block
            while left: left = left[os.write(1, left):]
        """
    )
    began = time.monotonic()
    with (tmp_path / "out.txt").open("wb") as file:
        subprocess.run([*RUN, name], stdout=file, check=True, timeout=60)
    assert time.monotonic() - began < 30
    block = b"".join(b"%09d\n" % n for n in range(10_000))
    with (tmp_path / "out.txt").open("rb") as file:
        assert sum(file.read(len(block)) == block for _ in range(1000)) == 1000
        assert file.read() == b""
    (folder,) = (home / "runs" / "default").iterdir()
    assert sum(path.stat().st_size for path in folder.glob("console.*")) < 22 << 20
    lines = [line.text for line in console_lines(folder)]
    assert lines[0] == "000000000"
    assert lines[-1] == "000009999"
    assert sum("left out" in line for line in lines) == 1


def test_who_stops_reading_ends_the_program_as_ever(script: Script) -> None:
    name = script("import os\nwhile True: os.write(1, b'y\\n' * 1000)")
    words = " ".join(f"'{word}'" for word in (*RUN, name))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -n 2"], capture_output=True, check=False, timeout=60
    )
    assert done.stdout == b"y\ny\n"
    assert done.returncode == 1
    assert b"BrokenPipeError" in done.stderr


def test_no_console_leaves_the_outputs_alone(script: Script, launched: Callable[..., object]) -> None:
    name = script("import os; print(os.readlink('/proc/self/fd/1') == os.readlink(f'/proc/{os.getppid()}/fd/1'))")
    done = launched("--no-console", name)
    assert done.out == b"True\n"
    assert not list(done.run.path.glob("console.*"))
    assert launched(name).out == b"False\n"


def test_what_a_background_process_prints_later_is_passed_on_and_the_command_ends_before(home: Path) -> None:
    with subprocess.Popen([*RUN, "bash", "-c", "(sleep 0.8; echo late) & echo now"], stdout=subprocess.PIPE) as process:
        began = time.monotonic()
        assert process.wait(30) == 0
        assert time.monotonic() - began < 30
        assert process.stdout.read() == b"now\nlate\n"


def test_the_console_command_shows_and_follows(
    script: Script, launched: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    launched(
        "-n", "shown", script("import sys; print('\\x1b[31mred\\x1b[0m'); print('\\x1b]0;t\\x07bad', file=sys.stderr)")
    )
    assert command(["console", "shown"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["bad", "red"]
    assert command(["console", "shown", "--errors", "--times"]) == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  bad\n", capsys.readouterr().out)
    assert command(["console", "shown", "-n", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert command(["console", "shown", "--follow"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["bad", "red"]


# --- terminals --------------------------------------------------------------------------------------------------------


def test_a_program_in_a_terminal_finds_one_of_its_size(script: Script, home: Path) -> None:
    name = script(
        """
        import os, sys, time, signal
        print(sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size().columns, flush=True)
        signal.signal(signal.SIGWINCH, lambda *_: print("now", os.get_terminal_size().columns, flush=True))
        print("name? ", end="", flush=True)
        print("hello", input(), flush=True)
        """
    )
    with Terminal([*RUN, name], columns=77) as terminal:
        assert b"run " in terminal.until(b"\n")
        assert b"True True True 77\r\n" in terminal.until(b"name? ")
        terminal.resize(55)
        assert b"now 55\r\n" in terminal.until(b"now 55\r\n")
        terminal.write(b"me\n")
        assert b"hello me\r\n" in terminal.until(b"hello me\r\n")
        assert terminal.wait() == 0


def test_ctrl_c_in_a_terminal_reaches_the_program_once(script: Script, home: Path) -> None:
    name = script(
        """
        import signal, time
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        print("ready", flush=True)
        end = time.monotonic() + 0.6
        while time.monotonic() < end: time.sleep(0.02)
        print("seen", len(seen), flush=True)
        """
    )
    with Terminal([*RUN, name]) as terminal:
        terminal.until(b"ready\r\n")
        terminal.write(b"\x03")
        assert b"seen 1\r\n" in terminal.until(b"\r\n")
        assert terminal.wait() == 0


def test_a_progress_bar_in_a_terminal_moves_and_is_kept_once(script: Script, home: Path) -> None:
    name = script("import sys\nfor n in range(101): sys.stderr.write(f'\\r{n}%'); sys.stderr.flush()\nprint()")
    with Terminal([*RUN, name]) as terminal:
        shown = terminal.until(b"100%\r\n")
        assert b"\r41%\r42%" in shown
        assert terminal.wait() == 0
    (folder,) = (home / "runs" / "default").iterdir()
    assert console_text(folder) == "100%\n"


def test_ctrl_z_stops_and_fg_goes_on(script: Script, home: Path) -> None:
    name = script("import os, time\nprint('ready', flush=True)\ntime.sleep(0.6)\nprint('done', flush=True)")
    shell = f"set -m; {' '.join(RUN)} {name}; echo stopped $?; read; fg >/dev/null; echo ended $?"
    with Terminal(["bash", "-c", shell]) as terminal:
        terminal.until(b"ready\r\n")
        terminal.write(b"\x1a")
        terminal.until(b"stopped 148")
        ours = [process for process in terminal.processes() if "runstone.cli.main" in process.cmdline()]
        assert sorted(process.status() == psutil.STATUS_STOPPED for process in ours) == [False, True], ours
        terminal.write(b"\n")
        terminal.until(b"ended 0")
        assert terminal.wait() == 0


def test_output_goes_on_to_a_file_when_only_errors_have_a_terminal(script: Script, home: Path, tmp_path: Path) -> None:
    name = script("import sys; print(sys.stdout.isatty(), sys.stderr.isatty())")
    with Terminal(["bash", "-c", f"{' '.join(RUN)} {name} > out.txt"]) as terminal:
        assert terminal.wait() == 0
    assert (tmp_path / "out.txt").read_text() == "False True\n"
