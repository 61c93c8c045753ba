"""The benchmark beside Ray Tune and Hydra: what is not installed is left out, and what is started is counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sweep_peers import find_subjects

from .conftest import Place


def test_a_peer_without_an_environment_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {name: tmp_path / name / "bin" / "python" for name in ("ray", "hydra")}
    subjects = find_subjects(tmp_path, missing, quick=True)
    assert [name.partition(",")[0] for name in subjects] == ["Runstone"] * 3
    out = capsys.readouterr().out
    assert "Ray Tune: skipped" in out
    assert "Hydra: skipped" in out


def test_our_own_subject_is_a_sweep_of_so_many_trials(place: Place) -> None:
    subjects = find_subjects(place.path, dict.fromkeys(("ray", "hydra"), place.path / "missing"), quick=True)
    *_, config = subjects["Runstone, script"].command(2)
    place.sweep("run", "--new", config)
    assert len(place.record.ranked()) == 2
    assert place.record.parallel == 2


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_what_outlives_the_program_is_waited_for_and_counted() -> None:
    # In a process of its own: it adopts what is left behind.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom benchmarks.sweep_peers import spend\n"
        "burn = 'import time; [None for _ in iter(lambda: time.process_time() < 0.6, False)]'\n"
        "left = f'{sys.executable} -S -c \"{burn}\" & exit 0'\n"
        "print(spend(['/bin/sh', '-c', left], Path('/tmp')).cpu_s)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.5
