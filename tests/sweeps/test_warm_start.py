"""Trials that are forked from a process with their modules: the same in everything as those that start cold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from runstone_sweeps.processes.trials import Ended, Started, TrialProcesses

LIMIT_S = 120.0
ENV = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "WORD": "wört", "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="warm starts are for Linux")


class Trials:
    """Runs commands as trials, one after the other or at once."""

    def __init__(self, processes: TrialProcesses, folder: Path) -> None:
        self.processes = processes
        self.folder = folder
        self.started: dict[int, Started] = {}
        self.ended: dict[int, Ended] = {}
        self._count = 0

    def start(
        self, argv: Sequence[str], *, env: dict[str, str] | None = None, is_warm: bool = True, memory: int | None = None
    ) -> int:
        number, self._count = self._count, self._count + 1
        self.console(number).unlink(missing_ok=True)
        environment = {**ENV, **(env or {})}
        self.processes.start(
            number,
            [sys.executable, *argv],
            env=environment,
            cwd=self.folder,
            console=self.console(number),
            is_warm=is_warm,
            memory_bytes=memory,
        )
        return number

    def console(self, number: int) -> Path:
        return self.folder.parent / f"console.{number}"

    def text(self, number: int) -> str:
        return re.sub(r"0x[0-9a-f]+", "0x", self.console(number).read_text())

    def until(self, is_so: Callable[[], bool]) -> None:
        limit = time.monotonic() + LIMIT_S
        while not is_so():
            assert time.monotonic() < limit
            for news in self.processes.poll(0.02):
                if isinstance(news, Started):
                    self.started[news.number] = news
                else:
                    self.ended[news.number] = news

    def run(self, argv: Sequence[str], *, env: dict[str, str] | None = None, is_warm: bool = True) -> tuple[int, str]:
        """Run a trial to its end; return its exit code and what it printed. A warm one must be warm."""
        number = self.start(argv, env=env, is_warm=is_warm)
        self.until(lambda: number in self.ended)
        assert self.started[number].is_warm == is_warm, self.processes.take_notes()
        return self.ended[number].code, self.text(number)

    def script(self, text: str, name: str = "train.py") -> str:
        (self.folder / name).write_text(textwrap.dedent(text))
        return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def trials(folder: Path) -> Trials:  # type: ignore[misc]  # a generator
    with TrialProcesses(preload=["csv"]) as processes:
        yield Trials(processes, folder)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


OBSERVE = """
'''A text.'''
import sys, os, signal, warnings, threading, gc, ctypes, io
libc = ctypes.CDLL(None); libc.getenv.restype = ctypes.c_char_p
main = sys.modules["__main__"]
def show(name, value): print(name, "=", ascii(value))
show("argv", sys.argv); show("orig_argv", sys.orig_argv); show("path", sys.path)
show("flags", sys.flags); show("xoptions", sys._xoptions); show("warnoptions", sys.warnoptions)
show("names", [n for n in vars(main) if n.startswith("__")])
show("main", [__name__, __file__, __doc__, __package__, __spec__, __cached__, __annotations__])
show("more", [type(__loader__).__name__, type(__builtins__).__name__, main.__dict__ is globals()])
show("loader", [__loader__.name, __loader__.path] if hasattr(__loader__, "path") else None)
show("cwd", os.getcwd()); show("env", list(os.environ.items()))
show("getenv", [libc.getenv(b"WORD"), libc.getenv(b"GONE")])
show("signals", [(s.name, signal.getsignal(s)) for s in sorted(signal.valid_signals() - {32, 33})
     if isinstance(s, signal.Signals)])
show("mask", signal.pthread_sigmask(signal.SIG_BLOCK, [])); show("wakeup", signal.set_wakeup_fd(-1))
show("stdin", [sys.stdin.read(), sys.stdin.fileno()])
for s in (sys.stdout, sys.stderr):
    show(s.name, [s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.fileno(), s.mode])
show("filters", warnings.filters); show("threads", [t.name for t in threading.enumerate()])
show("is_main", threading.current_thread() is threading.main_thread())
show("native", threading.main_thread().native_id == os.getpid())
show("gc", [gc.isenabled(), gc.get_threshold()]); show("fds", sorted(map(int, os.listdir("/proc/self/fd"))))
show("group", [os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()])
show("cmdline", open("/proc/self/cmdline", "rb").read()); show("environ", open("/proc/self/environ", "rb").read())
show("comm", open("/proc/self/comm").read()); show("umask", oct(os.umask(0o22)))
show("tasks", len(os.listdir("/proc/self/task"))); show("hooks", [sys.gettrace(), sys.getprofile()])
show("switch", sys.getswitchinterval()); show("excepthook", sys.excepthook is sys.__excepthook__)
show("last", [hasattr(sys, "last_value"), sys.exc_info()])
show("recursion", sys.getrecursionlimit()); show("prefix", [sys.prefix, sys.executable])
"""


@pytest.mark.parametrize(
    "options",
    [[], ["-u"], ["-O", "-W", "ignore"], ["-X", "dev"], ["-I"], ["-P"], ["-s", "-E"], ["-bb", "-Xutf8"]],
    ids="".join,
)
def test_a_warm_trial_sees_what_a_cold_one_sees(trials: Trials, options: list[str]) -> None:
    argv = [*options, trials.script(OBSERVE), "--lr=0.1", "--name=ä b"]
    cold = trials.run(argv, is_warm=False)
    assert cold[0] == 0, cold[1]
    for _ in range(2):
        warm = trials.run(argv)
        assert warm[1].splitlines() == cold[1].splitlines()
        assert warm[0] == 0


def test_variables_of_one_trial_reach_c_and_the_programs_that_it_starts_and_no_other_trial(trials: Trials) -> None:
    script = trials.script(
        "import ctypes, os, sys\nlibc = ctypes.CDLL(None); libc.getenv.restype = ctypes.c_char_p\n"
        "print([libc.getenv(name) for name in (b'RUNSTONE_TRIAL', b'RUNSTONE_NAME', b'FREE')], flush=True)\n"
        "os.system('echo $RUNSTONE_TRIAL $RUNSTONE_NAME $FREE')\n"
    )
    assert trials.run([script], env={"RUNSTONE_TRIAL": "1", "RUNSTONE_NAME": "ä", "FREE": "x"}) == (
        0,
        "[b'1', b'\\xc3\\xa4', b'x']\n1 ä x\n",
    )
    assert trials.run([script], env={"RUNSTONE_TRIAL": "2"}) == (0, "[b'2', None, None]\n2\n")
    assert trials.run([script], env={"FREE": "y"}) == (0, "[None, None, b'y']\ny\n")


@pytest.mark.parametrize("way", ["./train.py", "sub/../train.py", "absolute", "link.py"])
def test_a_script_is_found_and_named_as_it_was_given(trials: Trials, way: str) -> None:
    trials.script(OBSERVE)
    (trials.folder / "sub").mkdir()
    (trials.folder / "sub" / "real.py").write_text(OBSERVE)
    (trials.folder / "link.py").symlink_to("sub/real.py")
    argv = [str(trials.folder / "train.py") if way == "absolute" else way, "x"]
    assert trials.run(argv) == trials.run(argv, is_warm=False)


def test_a_module_is_run_as_python_dash_m_runs_it(trials: Trials) -> None:
    (trials.folder / "pkg").mkdir()
    (trials.folder / "pkg" / "__init__.py").write_text("")
    show_spec = "\nshow('spec', [__spec__.name, __spec__.origin, __package__])\nraise ValueError('end')\n"
    (trials.folder / "pkg" / "tool.py").write_text(OBSERVE + show_spec)
    (trials.folder / "pkg" / "__main__.py").write_text("import sys; print(sys.argv, __package__, __spec__)")
    for argv in (["-m", "pkg.tool", "a"], ["-m", "pkg"], ["-m", "pkg.nothing"]):
        warm, cold = trials.run(argv), trials.run(argv, is_warm=False)
        assert (warm[0], warm[1].splitlines()) == (cold[0], cold[1].splitlines())


ENDS = {
    "plain": "print('done')",
    "error": "def f(): raise ValueError('bad ä')\nf()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "context": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    undefined",
    "group": "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
    "syntax": "print('x'\n",
    "nul": "print('x')\0",
    "coding": "# -*- coding: latin-1 -*-\nprint('ok')",
    "bad coding": "# -*- coding: nonsense -*-\nprint('ok')",
    "exit none": "import sys; sys.exit()",
    "exit 3": "import sys; sys.exit(3)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit 256": "import sys; sys.exit(256)",
    "exit text": "import sys; print('before'); sys.exit('no ä')",
    "exit object": "raise SystemExit(['a', 1])",
    "exit bool": "raise SystemExit(True)",
    "os exit": "import os; os._exit(7)",
    "interrupt": "raise KeyboardInterrupt",
    "sigint": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "sigterm": "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
    "abort": "import os; os.abort()",
    "hook": "import sys\n"
    "sys.excepthook = lambda *a: print(a[0], a[1], a[2].tb_lineno, a[2].tb_next)\nraise ValueError(1)",
    "bad hook": "import sys\ndef hook(*a): raise TypeError('in hook')\nsys.excepthook = hook\nraise ValueError(1)",
    "exit in hook": "import sys\nsys.excepthook = lambda *a: sys.exit(5)\nraise ValueError(1)",
    "last": "import atexit, sys\natexit.register(lambda: print(sys.last_value, sys.last_traceback.tb_lineno))\n1/0",
    "atexit": "import atexit\nfor i in range(3): atexit.register(print, i)\natexit.register(lambda: 1/0)\nprint('end')",
    "file at exit": "import atexit\natexit.register(lambda: print('__file__' in globals(), __name__))",
    "file at exit of error": "import atexit\natexit.register(lambda: print('__file__' in globals()))\n1/0",
    "thread": "import threading, time\ndef f(): time.sleep(.1); print('late')\n"
    "threading.Thread(target=f).start()\nprint('main')",
    "thread error": "import threading\nt = threading.Thread(target=lambda: 1/0, name='T'); t.start(); t.join()",
    "daemon": "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    "f = open('left.txt', 'w'); f.write('kept'); print('main')",
    "pool": "from concurrent.futures import ThreadPoolExecutor as P\nimport time\n"
    "P(1).submit(lambda: (time.sleep(.05), print('job')))",
    "unflushed": "f = open('left.txt', 'w'); f.write('kept')",
    "cycle": "class A:\n    def __del__(self): print('gone', self.n)\na = A(); a.n = 1; a.me = a\nb = A(); b.n = 2",
    "generator": "def g():\n    try: yield 1\n    finally: print('closed')\nx = g(); next(x)",
    "finalizer": "import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'finalized')",
    "temporary": "import tempfile, os\nd = tempfile.TemporaryDirectory(dir='.')\nopen('name.txt', 'w').write(d.name)",
    "unclosed stdout": "import sys\nsys.stdout.write('no newline')",
    "closed stdout": "import sys\nsys.stdout.close()",
    "broken stdout": "import os, sys\nprint('x' * 10)\nos.close(1)\nos.open('/dev/full', os.O_WRONLY)",
    "printf": "import ctypes; ctypes.CDLL(None).printf(b'from C\\n')",
    "order": "import os, sys\nprint('out'); print('err', file=sys.stderr); os.write(1, b'raw\\n')",
    "warning": "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)",
    "logging": "import logging\nlogging.warning('w'); logging.getLogger('x').error('e')",
    "relative import": "from . import x",
    "future": "from __future__ import annotations\ndef f(a: undefined): return f.__annotations__\nprint(f(1))",
    "no future": "def f(a: int): return f.__annotations__\nprint(f(1))",
    "main import": "import __main__\nx = 5\nprint(__main__.x, __main__.__file__)",
    "execv": "import os, sys\n"
    "if len(sys.argv) < 2: os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])\nprint(sys.argv)",
    "subprocess": "import subprocess, sys\n"
    "print(subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout)",
}
# Only Python itself tells so well what is wrong with a text.
STARTS_COLD = {"syntax", "nul", "bad coding"}


@pytest.mark.parametrize("name", ENDS)
def test_a_warm_trial_ends_as_a_cold_one(trials: Trials, name: str) -> None:
    argv = [trials.script(ENDS[name])]
    left = trials.folder / "left.txt"
    ends = []
    for is_warm in (False, name not in STARTS_COLD):
        left.unlink(missing_ok=True)
        number = trials.start(argv, is_warm=is_warm or name in STARTS_COLD)
        trials.until(lambda: number in trials.ended)  # noqa: B023  # called at once
        assert trials.started[number].is_warm == is_warm
        code, text = trials.ended[number].code, trials.text(number)
        ends.append((code, text, left.read_text() if left.exists() else None))
    assert ends[1] == ends[0]
    assert [path for path in trials.folder.iterdir() if path.name.startswith("tmp")] == []


MULTIPROCESSING = """
import multiprocessing as mp, sys
from concurrent.futures import ProcessPoolExecutor
class Box:
    def __init__(self, x): self.x = x
def double(box): return Box(box.x * 2)
def put(queue): queue.put(Box("queued"))
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = mp.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(method, [box.x for box in pool.map(double, map(Box, range(4)))])
        queue = context.Queue()
        process = context.Process(target=put, args=(queue,)); process.start()
        print(queue.get().x); process.join(); print(process.exitcode)
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=100); memory.buf[0] = 1; memory.close(); memory.unlink()
    print(mp.current_process().name, mp.parent_process())
"""


def test_multiprocessing_works_in_a_warm_trial(trials: Trials) -> None:
    argv = [trials.script(MULTIPROCESSING)]
    trials.processes.close()
    with TrialProcesses(preload=["multiprocessing", "concurrent.futures", "multiprocessing.pool"]) as processes:
        trials.processes = processes
        warm, cold = trials.run(argv), trials.run(argv, is_warm=False)
    assert warm == cold
    assert "spawn [0, 2, 4, 6]" in warm[1]


def test_random_numbers_differ_from_trial_to_trial(folder: Path) -> None:
    with TrialProcesses(preload=["numpy", "numpy.random", "random", "tempfile", "uuid"]) as processes:
        trials = Trials(processes, folder)
        script = trials.script(
            """
            import random, tempfile, uuid, numpy as np, os, secrets
            print(random.random()); print(np.random.rand()); print(next(tempfile._get_candidate_names()))
            print(uuid.uuid4()); print(np.random.default_rng().random()); print(secrets.token_hex(4))
            """
        )
        drawn = [trials.run([script])[1].split() for _ in range(3)]
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == 3


def test_a_changed_script_and_changed_modules_of_the_user_are_run_as_they_are(trials: Trials) -> None:
    trials.script("VALUE = 1", "own.py")
    script = trials.script("import own; print(own.VALUE)")
    assert trials.run([script]) == (0, "1\n")
    trials.script("VALUE = 22", "own.py")
    assert trials.run([script]) == (0, "22\n")
    trials.script("import own; print('now', own.VALUE)")
    assert trials.run([script]) == (0, "now 22\n")


def test_a_script_that_begins_to_set_what_modules_read_starts_cold(trials: Trials) -> None:
    script = trials.script("print(1)")
    trials.run([script])
    trials.script("import os; os.environ['OMP_NUM_THREADS'] = '3'; print(2)")
    number = trials.start([script])
    trials.until(lambda: number in trials.ended)
    assert not trials.started[number].is_warm
    assert trials.text(number) == "2\n"
    assert trials.processes.take_notes() == ["trials start cold: train.py sets OMP_NUM_THREADS, line 1"]


def test_a_file_that_stands_in_for_a_loaded_module_makes_it_start_cold(trials: Trials) -> None:
    script = trials.script("import csv; print(csv.WHO)")
    trials.script("WHO = 'mine'", "csv.py")
    number = trials.start([script])
    trials.until(lambda: number in trials.ended)
    assert (trials.started[number].is_warm, trials.text(number)) == (False, "mine\n")
    assert "csv in the script's folder" in trials.processes.take_notes()[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "started a thread",
        ),
        (
            "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
            "processes",
        ),
        ("raise RuntimeError('no')", "import odd failed: RuntimeError: no"),
        ("import os; os._exit(3)", "died of it"),
        ("import sys; sys.exit(3)", "import odd failed: SystemExit: 3"),
    ],
)
def test_modules_that_must_not_be_shared_make_trials_start_cold(folder: Path, text: str, reason: str) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "odd.py").write_text(text)
    with TrialProcesses(preload=["odd"]) as processes:
        trials = Trials(processes, folder)
        env = {"PYTHONPATH": str(folder / "lib")}
        numbers = [trials.start([trials.script("print('ran')")], env=env) for _ in range(3)]
        trials.until(lambda: len(trials.ended) == 3)
        assert [trials.text(number) for number in numbers] == ["ran\n"] * 3
        assert not any(trials.started[number].is_warm for number in numbers)
        (note,) = processes.take_notes()
        assert reason in note


def test_what_is_printed_by_imports_is_in_the_console_of_each_trial(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "loud.py").write_text("import sys; print('loaded'); print('warned', file=sys.stderr)")
    env = {"PYTHONPATH": str(folder / "lib")}
    with TrialProcesses(preload=["loud"]) as processes:
        trials = Trials(processes, folder)
        argv = [trials.script("import loud; print('ran')")]
        for _ in range(2):
            code, text = trials.run(argv, env=env)
            assert (code, sorted(text.split())) == (0, ["loaded", "ran", "warned"])


def test_trials_with_other_variables_get_a_server_of_their_own(trials: Trials) -> None:
    script = trials.script("import os; print(os.environ.get('MKL_X'), os.environ.get('FREE'), os.getppid())")
    told = [
        trials.run([script], env=env)[1].split()
        for env in ({"MKL_X": "1", "FREE": "a"}, {"MKL_X": "1", "FREE": "b"}, {"MKL_X": "2"}, {})
    ]
    assert [words[:2] for words in told] == [["1", "a"], ["1", "b"], ["2", "None"], ["None", "None"]]
    assert told[0][2] == told[1][2]
    assert len({words[2] for words in told}) == 3


def test_more_sets_of_variables_than_servers_start_cold(trials: Trials) -> None:
    script = trials.script("import os; print(os.environ['MKL_X'])")
    numbers = [trials.start([script], env={"MKL_X": str(number)}) for number in range(6)]
    trials.until(lambda: len(trials.ended) == 6)
    assert [trials.text(number) for number in numbers] == [f"{number}\n" for number in range(6)]
    assert [trials.started[number].is_warm for number in numbers] == [True] * 4 + [False] * 2
    assert "differ from trial to trial" in trials.processes.take_notes()[0]


def test_later_trials_find_what_the_first_had_to_load(trials: Trials) -> None:
    script = trials.script(
        "import sys\nwas = 'xmlrpc.client' in sys.modules\ndef f(): import xmlrpc.client\nf()\nprint(was)"
    )
    assert [trials.run([script])[1] for _ in range(3)] == ["False\n", "True\n", "True\n"]


def test_modules_of_the_user_are_never_kept(trials: Trials) -> None:
    trials.script("import sys; print('executed')", "own.py")
    script = trials.script("import sys; print('own' in sys.modules); import own")
    assert [trials.run([script])[1] for _ in range(4)] == ["False\nexecuted\n"] * 4


def test_a_sweep_goes_on_where_learned_modules_start_threads(folder: Path) -> None:
    site = folder / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "busy.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    env = {"PYTHONPATH": str(site)}
    with TrialProcesses() as processes:
        trials = Trials(processes, folder)
        script = trials.script("import time, sys; print('busy' in sys.modules); import busy; time.sleep(0.05)")
        numbers = [trials.start([script], env=env) for _ in range(6)]
        trials.until(lambda: len(trials.ended) == 6)
        assert [trials.text(number) for number in numbers] == ["False\n"] * 6
        assert all(trials.started[number].is_warm for number in numbers)
        assert processes.take_notes() == []


def test_an_installation_while_a_sweep_runs_is_seen(folder: Path) -> None:
    site = folder / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "tool.py").write_text("VERSION = 1")
    env = {"PYTHONPATH": str(site)}
    with TrialProcesses(preload=["tool"]) as processes:
        trials = Trials(processes, folder)
        script = trials.script("import tool; print(tool.VERSION)")
        assert trials.run([script], env=env) == (0, "1\n")
        (site / "tool.py").write_text("VERSION = 22")
        (site / "tool-22.dist-info").mkdir()
        assert trials.run([script], env=env) == (0, "22\n")


# --- ends of processes -----------------------------------------------------------------------------------------------

SLEEPER = "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(60)"


def pids_of(trials: Trials, number: int, count: int = 2) -> list[int]:
    trials.until(lambda: trials.console(number).exists() and trials.text(number).count("\n") == count)
    return [int(word) for word in trials.text(number).split()]


def server_of(pid: int) -> psutil.Process:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return parent


def test_a_killed_server_ends_its_trials_and_says_why_and_another_takes_its_place(trials: Trials) -> None:
    number = trials.start([trials.script(SLEEPER)])
    pids = pids_of(trials, number)
    server_of(min(pids)).kill()
    trials.until(lambda: number in trials.ended)
    assert (trials.ended[number].code, trials.ended[number].reason) == (-signal.SIGKILL, "server")
    assert all(map(is_gone, pids))
    assert trials.run([trials.script("print('again')")]) == (0, "again\n")


def test_a_server_that_is_killed_time_and_again_is_given_up(trials: Trials) -> None:
    for _ in range(3):
        number = trials.start([trials.script(SLEEPER)])
        server_of(min(pids_of(trials, number))).kill()
        trials.until(lambda: number in trials.ended)  # noqa: B023  # called at once
    number = trials.start([trials.script("print('cold')")])
    trials.until(lambda: number in trials.ended)
    assert not trials.started[number].is_warm
    assert "time and again" in trials.processes.take_notes()[0]


@pytest.mark.parametrize("victim", ["coordinator", "supervisor", "both"])
def test_nothing_is_left_when_coordinator_or_supervisor_are_killed(folder: Path, victim: str) -> None:
    (folder / "train.py").write_text(SLEEPER)
    code = """
import sys
from pathlib import Path
from runstone_sweeps.processes.trials import TrialProcesses, SupervisorLost
processes = TrialProcesses()
for number in range(2):
    argv, console = [sys.executable, "train.py"], Path(f"pids{number}")
    processes.start(number, argv, env={}, cwd=Path("."), console=console, is_warm=True)
print(processes._popen.pid, flush=True)
try:
    while True:
        processes.poll(1.0)
except SupervisorLost:
    pass
"""
    coordinator = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert coordinator.stdout is not None
    supervisor = int(coordinator.stdout.readline())
    consoles = [folder / "pids0", folder / "pids1"]
    limit = time.monotonic() + LIMIT_S
    while not all(path.exists() and path.read_text().count("\n") == 2 for path in consoles):
        assert time.monotonic() < limit
        time.sleep(0.01)
    pids = [int(word) for path in consoles for word in path.read_text().split()]
    everyone = [supervisor, server_of(min(pids)).pid, *pids]
    if victim != "supervisor":
        os.kill(coordinator.pid, signal.SIGKILL)
    if victim != "coordinator":
        os.kill(supervisor, signal.SIGKILL)
    if victim == "both":  # no one is left to find what a trial forked; the system ends the trials themselves
        everyone = [pid for pid in everyone if pid not in pids or os.getsid(pid) == pid]
    while not all(map(is_gone, everyone)):
        assert time.monotonic() < limit, [pid for pid in everyone if not is_gone(pid)]
        time.sleep(0.01)
    coordinator.wait()
    coordinator.stdout.close()
    for pid in pids:
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_closing_ends_servers_and_trials(trials: Trials) -> None:
    number = trials.start([trials.script(SLEEPER)])
    pids = pids_of(trials, number)
    server = server_of(min(pids)).pid
    trials.processes.close()
    assert all(map(is_gone, [server, *pids]))


def test_a_signal_before_the_start_is_delivered_after_it(trials: Trials) -> None:
    number = trials.start([trials.script("import time; time.sleep(60)")])
    trials.processes.send_signal(number, signal.SIGTERM)
    trials.until(lambda: number in trials.ended)
    assert trials.ended[number].code == -signal.SIGTERM


def test_what_a_warm_trial_leaves_behind_is_ended_before_its_end_is_told(trials: Trials) -> None:
    script = trials.script("import os,time; pid=os.fork(); print(pid, flush=True) if pid else time.sleep(60)")
    number = trials.start([script])
    trials.until(lambda: number in trials.ended)
    assert is_gone(int(trials.text(number).split()[0]))


def test_zombies_of_warm_trials_are_reaped(trials: Trials) -> None:
    script = trials.script("print(1)")
    for _ in range(3):
        trials.run([script])
    assert trials.processes._popen is not None
    below = psutil.Process(trials.processes._popen.pid).children(recursive=True)
    assert [process.status() for process in below].count(psutil.STATUS_ZOMBIE) == 0
    assert len(below) == 1  # the server


# --- memory and use --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_trial_that_takes_more_memory_than_allowed_is_ended(trials: Trials, is_warm: bool) -> None:
    text = "import time, os\nif os.fork(): time.sleep(60)\nx = bytearray(200_000_000); time.sleep(60)"
    number = trials.start([trials.script(text)], memory=100_000_000, is_warm=is_warm)
    modest = trials.start(
        [trials.script("import time; time.sleep(1)", "modest.py")], memory=100_000_000, is_warm=is_warm
    )
    trials.until(lambda: len(trials.ended) == 2)
    assert (trials.ended[number].code, trials.ended[number].reason) == (-signal.SIGKILL, "memory")
    assert (trials.ended[modest].code, trials.ended[modest].reason) == (0, None)


@pytest.mark.parametrize("is_warm", [False, True])
def test_what_a_trial_used_is_told_with_its_end(trials: Trials, is_warm: bool) -> None:
    spend = "x = bytearray(60_000_000)\nimport time, os\nwhile time.process_time() < 0.3: pass\n"
    text = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spend!r}])\n{spend}"
    number = trials.start([trials.script(text)], is_warm=is_warm)
    trials.until(lambda: number in trials.ended)
    assert 0.6 < trials.ended[number].cpu_s < 3.0
    assert 60_000_000 < trials.ended[number].max_rss_bytes < 150_000_000


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_trial_of_torch_trains_the_same_in_a_small_part_of_the_time(folder: Path) -> None:
    pytest.importorskip("torch")
    with TrialProcesses(preload=["torch"]) as processes:
        trials = Trials(processes, folder)
        script = trials.script(
            """
            import torch
            x, y = torch.randn(64, 8), torch.randn(64, 1)
            model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
            optimizer = torch.optim.Adam(model.parameters(), 1e-2)
            for _ in range(20):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(x), y)
                loss.backward()
                optimizer.step()
            print(loss.item(), torch.initial_seed(), torch.get_num_threads())
            """
        )
        cold, *warm = [trials.start([script], is_warm=is_warm) for is_warm in (False, True)]
        trials.until(lambda: len(trials.ended) == 2)
        warm += [trials.start([script]), trials.start([script], env={"CUDA_VISIBLE_DEVICES": ""})]
        trials.until(lambda: len(trials.ended) == 4)
        texts = [trials.text(number).split() for number in (cold, *warm)]
        assert [words[2] for words in texts] == ["1"] * 4
        assert len({words[1] for words in texts}) == 4  # as torch draws it in each process
        assert all(trials.started[number].is_warm for number in warm)
        assert trials.ended[warm[-1]].cpu_s < trials.ended[cold].cpu_s / 8


def test_threads_of_a_memory_pool_do_not_keep_trials_from_starting_warm(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    with TrialProcesses(preload=["pyarrow"]) as processes:
        trials = Trials(processes, folder)
        text = (
            "import pyarrow\n"
            "data = pyarrow.array(range(300_000))\n"
            "print(len(data), pyarrow.default_memory_pool().bytes_allocated() > 0)\n"
        )
        for _ in range(2):  # `run` sees to it that it is warm
            assert trials.run([trials.script(text)]) == (0, "300000 True\n")
