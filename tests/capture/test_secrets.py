"""A secret that is planted anywhere is in none of the bytes that a run leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Put together at run time: a scanner of this repository would take them for real.
PLANTED = {
    "variable": "plantedinvariable99",
    "allowed variable": "planted-in-cuda-key",
    "variable url": "plantedinurlvariable",
    "flag": "plantedbehindflag",
    "flag with sign": "plantedbehindsign",
    "shape in an argument": "ghp_" + "plantedA1b2C3d4E5f6G7h8I9j0K1l2M3n4",
    "random argument": "Pl4nT3dq7Wm2Zx9Lp4Kt8Vb3Nc6Rj1",
    "password in an argument": "plantedindsn",
    "remote user": "planteduser",
    "remote password": "plantedpassword",
    "tracked change": "plantedinchange",
    "token in a change": "hf_" + "PlantedAbCdEfGhIjKlMnOpQr",
    "removed line": "plantedinremoved",
    "untracked file": "plantedinuntracked",
    "env file": "plantedinenvfile",
    "tracked env file": "plantedintrackedenv",
    "key file": "plantedinkeyfile",
    "pem block": "plantedinpemblock",
    "notebook": "plantedinnotebook",
}
PROGRAM = """
import sys
from pathlib import Path
from runstone.capture import start_background
work = start_background(Path(sys.argv[1]), "w")
assert work.join(), work.error
assert work.error is None, work.error
"""


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, bytes]:
    """Return the files of a run that was started where secrets lie everywhere, by name."""
    project, run = tmp_path / "project", tmp_path / "run"
    project.mkdir()
    run.mkdir()

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True)

    git("init", "-b", "main")
    (project / "train.py").write_text(PROGRAM)
    (project / "old.py").write_text(f'password = "{PLANTED["removed line"]}"\n')
    (project / ".env").write_text("A=1\n")
    git("add", "-f", ".")
    git("commit", "-m", "first")
    user, password = PLANTED["remote user"], PLANTED["remote password"]
    git("remote", "add", "origin", f"https://{user}:{password}@host.example/a.git")
    (project / "old.py").unlink()
    (project / ".env").write_text(f"A={PLANTED['tracked env file']}\n")
    (project / "train.py").write_text(
        PROGRAM + f'API_KEY = "{PLANTED["tracked change"]}"\nlogin = "{PLANTED["token in a change"]}"\n'
    )
    (project / "config.yaml").write_text(f"lr: 0.1\nsecret: {PLANTED['untracked file']}\n")
    (project / ".env.local").write_text(f"X={PLANTED['env file']}\n")
    (project / "server.key").write_text(PLANTED["key file"])
    begin, end = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
    (project / "deploy.txt").write_text(f"{begin}\n{PLANTED['pem block']}\n{end}\n")
    (project / "n.ipynb").write_text(f'{{"source": ["os.environ[\\"API_TOKEN\\"] = \\"{PLANTED["notebook"]}\\"\\n"]}}')
    environment = dict(os.environ) | {
        "AWS_SECRET_ACCESS_KEY": PLANTED["variable"],
        "CUDA_API_KEY": PLANTED["allowed variable"],
        "TORCH_HOME": f"https://jane:{PLANTED['variable url']}@host.example/x",
    }
    arguments = [
        *("--api-key", PLANTED["flag"], f"--token={PLANTED['flag with sign']}"),
        *(PLANTED["shape in an argument"], "--note", PLANTED["random argument"]),
        *("--db", f"postgres://jane:{PLANTED['password in an argument']}@host.example/db"),
    ]
    command = [sys.executable, "train.py", str(run), *arguments]
    subprocess.run(command, cwd=project, env=environment, check=True, timeout=60)
    return {path.name: path.read_bytes() for path in run.iterdir()}


def test_planted_secrets_are_nowhere_in_the_stored_bytes(stored: dict[str, bytes]) -> None:
    assert sorted(stored) == ["code.w.patch", "environment.w.json"]
    found = [place for place, secret in PLANTED.items() if any(secret.encode() in data for data in stored.values())]
    assert found == []


def test_what_is_no_secret_is_there(stored: dict[str, bytes]) -> None:
    patch, environment = stored["code.w.patch"], stored["environment.w.json"]
    assert b'+API_KEY = "<redacted>"' in patch
    assert b"+lr: 0.1" in patch
    assert b"+secret: <redacted>" in patch
    assert b"https://host.example/a.git" in environment
    assert b"--api-key" in environment
