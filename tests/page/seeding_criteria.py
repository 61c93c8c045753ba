"""Workspaces with what single parts of the page are for: media, artifacts, environments, what a machine did."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

import runstone

CLASSES = ("cat", "dog", "owl")
WORDS = ("adam", "sgd", "lion", "adagrad")


def picture(step: int, run: int) -> Any:
    """Return an image whose colour tells its step and its run."""
    made = np.zeros((24, 24, 3), dtype=np.uint8)
    made[:, :] = (step % 256, 60 + 90 * run, 160)
    return made


def seed_media(path: Path, *, runs: int = 2, steps: int = 40, each: int = 10) -> list[str]:
    """Make the project `vision`: at some steps images, histograms, confusion matrices, texts; of one run a figure, too.

    Args:
        path: The workspace.
        runs: How many.
        steps: How many steps have texts and histograms.
        each: Every how many of them there are images and tables.
    """
    ids = []
    for k in range(runs):
        with runstone.start_run(project="vision", name=f"net-{k}", workspace=path, environment=False) as run:
            rng = np.random.default_rng(k)
            for step in range(steps):
                run.log_text("notes", f"step {step} of net-{k}", step=step)
                run.log_histogram("weights", rng.standard_normal(300) * (1 + step / steps), bins=20, step=step)
                if step % each == 0:
                    run.log_image("samples", picture(step, k), step=step, caption=f"epoch {step}")
                    right = 5 + step
                    table = [
                        {"true": truth, "predicted": said, "count": right if truth == said else 3}
                        for truth in CLASSES
                        for said in CLASSES
                    ]
                    run.log_table("confusion", table, step=step)
            run.log({"loss": 1.0 / (k + 1)}, step=steps)
            if k == 0:
                run.log_figure("roc", _figure(), step=0)
        ids.append(run.id)
    return ids


def _figure() -> Any:
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(x=[0, 0.2, 1], y=[0, 0.8, 1], name="roc"))


def safetensors(shape: tuple[int, int]) -> bytes:
    """Return a file of one tensor."""
    size = 4 * shape[0] * shape[1]
    header = json.dumps({"layer.weight": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def seed_artifacts(path: Path) -> tuple[str, str]:
    """Make the project `files`: two runs with a folder of many kinds of files, checkpoints, and a file that is lost.

    Returns:
        Their ids.
    """
    ids = []
    for k in range(2):
        folder = path.parent / f"bundle-{k}"
        (folder / "deep" / "down").mkdir(parents=True)
        (folder / "notes.txt").write_text(f"words of run {k}\n")
        (folder / "config.json").write_text(json.dumps({"lr": 0.1, "layers": [64, 32]}))
        (folder / "rows.csv").write_text("name,score\nada,1.5\ngrace,2.5\n")
        (folder / "page.html").write_text("<h1>Hello</h1><script>parent.document.title='broken'</script>")
        (folder / "deep" / "down" / "weights.safetensors").write_bytes(safetensors((3, 4)))
        (folder / "deep" / "picture.png").write_bytes(_png(k))
        if k:
            (folder / "extra.txt").write_text("only here\n")
        with runstone.start_run(project="files", name=f"make-{k}", workspace=path, environment=False) as run:
            run.log_artifact(folder, name="bundle")
            for mark in ("best", "last"):
                file = path.parent / f"{mark}-{k}.ckpt"
                file.write_bytes(f"{mark} of {k}".encode() * 20)
                run.log_artifact(file, name=f"checkpoints/{mark}", metadata={"role": mark, "step": 7})
            lost = path.parent / f"lost-{k}.bin"
            lost.write_bytes(f"lost {k}".encode())
            run.log_artifact(lost, name="lost")
        ids.append(run.id)
    for k, run_id in enumerate(ids):
        lost_hash = runstone.open_workspace(path).run(run_id).artifacts[-1].files[0].hash
        found = next(path.joinpath("blobs").rglob(f"*{lost_hash[4:]}*"), None)
        assert found is not None, k
        found.unlink()
    return ids[0], ids[1]


def _png(k: int) -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (12, 8), (30 + 100 * k, 90, 160)).save(out, "PNG")
    return out.getvalue()


def seed_system(path: Path, *, seconds: float = 2.5) -> str:
    """Make a run of `machine` that really takes a while, so that its machine is measured; return its id.

    It is measured each half second.
    """
    with runstone.start_run(
        project="machine", name="busy", workspace=path, environment=False, system_metrics=0.5
    ) as run:
        began = time.monotonic()
        step = 0
        while time.monotonic() - began < seconds:
            run.log({"train/loss": 1 / (step + 1), "lr": 0.1}, step=step)
            step += 1
            time.sleep(0.05)
    return run.id


def seed_environments(path: Path, script: Path) -> tuple[str, str]:
    """Run a script twice in processes of their own, so that their environments are recorded and differ; return ids."""
    import os
    import subprocess
    import sys

    script.write_text(
        "import runstone, sys, time\n"
        "k = int(sys.argv[1])\n"
        f"workspace = {str(path)!r}\n"
        "with runstone.start_run(project='places', name=f'place-{k}', params={'k': k}, workspace=workspace) as run:\n"
        "    run.log({'loss': 1.0 / (k + 1)}, step=0)\n"
        "    end = time.monotonic() + 60\n"
        "    while run.read().environment is None and time.monotonic() < end:\n"
        "        time.sleep(0.1)  # it is captured in the background\n"
    )
    for k in range(2):
        env = os.environ | {"RUNSTONE_SYSTEM_METRICS": "0", "OMP_NUM_THREADS": str(k + 1)}
        subprocess.run([sys.executable, str(script), str(k)], check=True, env=env, timeout=120)
    found = {run.name: run.id for run in runstone.open_workspace(path).runs("project = 'places'")}
    return found["place-0"], found["place-1"]
