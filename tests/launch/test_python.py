"""A Python script runs as Python would run it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Script = Callable[..., str]

_LOOK = """
    '''Doc.'''
    import json, sys, threading, __main__
    names = {name: repr(value) for name, value in vars(__main__).items() if name.startswith("__")}
    del names["__builtins__"]
    names["__loader__"] = f"{type(__loader__).__name__} {getattr(__loader__, 'path', '')}"
    names["__spec__"] = __spec__ and __spec__.name
    print(json.dumps([sys.argv, sys.orig_argv, sys.path, names, sys.flags.optimize, sorted(vars(__main__))]))
    """


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--lr", "0.1"],
        ["./train.py"],
        ["-O", "sub/train.py", "-m", "x"],
        ["-B", "-m", "sub.train", "a b"],
        ["-W", "ignore", "-m", "sub", "x"],
        ["-c", "import sys; exec(open('train.py').read())", "x"],
        ["folder", "x"],
    ],
)
def test_a_script_finds_everything_as_without_us(
    words: list[str], script: Script, launched: Callable[..., object], plain: Callable[..., object]
) -> None:
    for name in ("train.py", "sub/train.py", "sub/__main__.py", "folder/__main__.py"):
        script(_LOOK, name)
    script("", "sub/__init__.py")
    expected = plain(sys.executable, *words)
    assert expected.returncode == 0, expected.stderr
    done = launched(sys.executable, *words)
    assert (done.out, done.err) == (expected.stdout, expected.stderr)
    assert done.run.status == "finished"


def test_a_file_of_python_is_run_by_this_interpreter(script: Script, launched: Callable[..., object]) -> None:
    assert launched(script("import sys; print(sys.executable)")).out.decode().strip() == sys.executable


_ENDS = {
    "error": "def f(): raise ValueError('no') from KeyError(1)\nf()",
    "syntax": "x = = 1",
    "missing": "import nothing_of_this_name",
    "exit": "import sys; sys.exit(3)",
    "words": "import sys; sys.exit('bye')",
    "hook": "import sys\nsys.excepthook = lambda *error: print('mine', error[0], error[2].tb_next)\n1 / 0",
    "argparse": "import argparse\np = argparse.ArgumentParser(exit_on_error=False)\n"
    "p.add_argument('--n', type=int)\np.parse_args(['--n', 'x'])",
    "usage": "import argparse\np = argparse.ArgumentParser()\np.parse_args(['--n', 'x'])",
    "click": "import click\n@click.command()\ndef main(): 1 / 0\nmain()",
    "context": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}['x']",
    "late": "import atexit\natexit.register(print, 'after')\n1 / 0",
    "thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.2), print('done'))).start()\n1 / 0",
    "interrupt": "raise KeyboardInterrupt",
    "group": "raise ExceptionGroup('g', [ValueError(1), KeyError(2)])",
}


@pytest.mark.parametrize("name", _ENDS)
def test_a_script_ends_as_without_us(
    name: str, script: Script, launched: Callable[..., object], plain: Callable[..., object]
) -> None:
    path = script(_ENDS[name])
    expected = plain(sys.executable, path)
    done = launched(path)
    assert (done.out, done.err) == (expected.stdout, expected.stderr)
    assert done.code == (expected.returncode if expected.returncode >= 0 else 128 - expected.returncode)
    assert done.code > 0


def test_a_failed_script_is_a_failed_run_with_its_exception(script: Script, launched: Callable[..., object]) -> None:
    done = launched(script("class Odd(RuntimeError): pass\nraise Odd('no data')"))
    assert (done.code, done.run.status) == (1, "failed")
    failure = done.run.failure
    assert (failure.type, failure.message) == ("Odd", "no data")
    assert failure.traceback.startswith("Traceback (most recent call last):\n")
    assert "runstone" not in failure.traceback.replace(str(Path.cwd()), "")


def test_processes_that_a_script_starts_are_not_observed(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import argparse, multiprocessing, os, subprocess, sys
        def work(n):
            p = argparse.ArgumentParser(); p.add_argument("--inner", default=n); p.parse_args()
            return n, __name__
        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.map(work, [1]))
            inner = "import argparse, os; argparse.ArgumentParser().parse_args();"
            inner += "print(len(os.listdir('/proc/self/fd')))"
            subprocess.run([sys.executable, "-c", inner], close_fds=False)
            print(len(sys.meta_path) > 0)
        """
    )
    done = launched(name)
    assert done.out.splitlines() == [b"[(1, '__main__')]", b"[(1, '__mp_main__')]", b"4", b"True"], done.err
    assert done.run.params == {}


def test_the_environment_is_that_of_the_script(script: Script, launched: Callable[..., object]) -> None:
    done = launched(sys.executable, "-X", "utf8", "-O", script("print(1)"), "--token", "hunter2222", whole=True)
    environment = done.run.environment
    assert environment["process"]["argv"] == [
        *(sys.executable, "-X", "utf8", "-O", "train.py", "--token", "<redacted>"),
    ]
    assert environment["process"]["entry"] == str(Path.cwd() / "train.py")
    assert environment["process"]["kind"] == "script"
    assert environment["process"]["cwd"] == str(Path.cwd())
    assert environment["python"]["executable"] == sys.executable
    assert environment["python"]["flags"]["optimize"] == 1
    assert environment["packages"]
    assert environment["frameworks"] is None
    assert environment["why"]["frameworks"].startswith("absent: ")
    for path in (*done.run.path.glob("environment.*"), *done.run.path.glob("console.*")):
        assert path.stat().st_mode & 0o077 == 0  # for the owner only


def test_the_environment_of_another_program_tells_of_no_python(launched: Callable[..., object]) -> None:
    environment = launched("bash", "-c", "true", whole=True).run.environment
    assert environment["process"]["argv"] == ["bash", "-c", "true"]
    assert environment["python"] is None
    assert environment["packages"] is None
    assert "not Python" in environment["why"]["python"]
    assert environment["cpu"]
