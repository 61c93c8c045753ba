"""`runstone models export`: a version as a folder that serves itself, without the workspace."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone._version import __version__
from runstone.errors import AlreadyExists, InvalidValue, NotFound
from runstone.models import Manifest, ModelVersion, read_manifest
from runstone.models.loading import check_out
from runstone.serving.config import DEFAULT_PORT
from runstone.serving.sources import EXPORTED, example_body, example_of, signature_of, widths_of
from runstone.workspace import Workspace

# What a model of a flavour needs beside runstone[serving], as it is called where packages come from.
_NEEDED = {
    "sklearn": ("scikit-learn", "skops", "numpy", "scipy", "joblib", "threadpoolctl"),
    "torch": ("torch", "safetensors", "numpy"),
    "torch.export": ("torch", "numpy"),
    "keras": ("keras", "torch", "tensorflow", "jax", "numpy"),
    "onnx": ("onnxruntime", "numpy"),
    "pickle": ("scikit-learn", "numpy", "scipy", "cloudpickle", "joblib", "xgboost", "lightgbm", "catboost"),
}

_SERVE = """\
\"\"\"Serves the model in this folder: python serve.py [--host 127.0.0.1] [--port {port}] [--token TEXT]\"\"\"

import argparse
import os
from pathlib import Path

from runstone.serving import LogConfig, Place, ServingConfig, serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default={port})
    parser.add_argument("--token", default=os.environ.get("RUNSTONE_SERVING_TOKEN"), help="what clients must show")
    parser.add_argument("--allowed-host", action="append", default=[], help="name under which it may be reached")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trust", action="store_true", help="execute what the author of the model wrote")
    parser.add_argument("--log-folder", type=Path, help="keep a share of predictions here")
    parser.add_argument("--log-sample", type=float, default=0.1)
    given = parser.parse_args()
    config = ServingConfig(
        host=given.host,
        port=given.port,
        token=given.token,
        allowed_hosts=tuple(given.allowed_host),
        workers=given.workers,
        reload_s=0,
        log=LogConfig(folder=given.log_folder, sample=given.log_sample),
    )
    place = Place(Path(__file__).resolve().parent, is_trusted=given.trust)
    serve(place, config, announce=lambda url: print(f"served at {{url}}", flush=True))
"""

_DOCKERFILE = """\
FROM python:{python}-slim
WORKDIR /model
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --no-create-home served
USER served
EXPOSE {port}
HEALTHCHECK CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/health', timeout=3)"
# The token comes by -e RUNSTONE_SERVING_TOKEN=…; without one it does not start where others could reach it.
CMD ["python", "serve.py", "--host", "0.0.0.0"{trust}]
"""

_README = """\
# {ref}

Registered {registered} by {author}{run}; hash `{hash}`.

```bash
python -m venv .venv && .venv/bin/pip install -r requirements.txt
.venv/bin/python serve.py{trust}                          # http://127.0.0.1:{port}, for this machine only
docker build -t {image} . && docker run -e RUNSTONE_SERVING_TOKEN=change-me -p {port}:{port} {image}
```
{example}
It takes {inputs}. `GET /openapi.json` describes the API, `/metadata` the version, `/metrics` is for Prometheus.

| file | what it is |
|---|---|
| `model/` | the files of the version, as they were registered |
| `manifest.json` | what the version consists of and came from; its BLAKE3 hash is the one above |
| `model.json` | model, version, hash, an example of a request |
| `signature.json` | what it takes and gives |
| `requirements.txt` | packages, pinned |
| `serve.py`, `Dockerfile` | the server |
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: which version, how many files, bytes of the model."""

    ref: str
    files: int
    size_bytes: int


def export_model(workspace: Workspace, ref: str, folder: Path) -> Exported:
    """Write a version into a folder that serves itself.

    Args:
        workspace: Where the registry lies.
        ref: Which version.
        folder: A new one, or an empty one.

    Raises:
        AlreadyExists: there is something in the folder.
        InvalidValue: the version was withdrawn, or has no signature.
        NotFound: its content is not in this workspace.
        FormatError: its content is damaged.
    """
    version = workspace.models.find(ref)
    if version.withdrawn is not None:
        raise InvalidValue(f"{version} was withdrawn: {version.withdrawn}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} is not empty; give a new folder")
    manifest = read_manifest(version, workspace.blobs)
    signature_of(manifest, str(version))
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "model").mkdir()
        check_out(manifest, workspace.blobs, folder / "model")
        example = example_of(manifest, workspace.blobs)
        for name, text in _texts(version, manifest, example, _recorded(workspace, version.run_id)).items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "manifest.json").write_bytes(workspace.blobs.read(version.manifest))
    except BaseException:
        for path in [folder] if is_new else list(folder.iterdir()):  # it was empty: all of it is ours
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    count = sum(path.is_file() for path in folder.rglob("*"))
    return Exported(str(version), count, manifest.size_bytes)


def _texts(version: ModelVersion, manifest: Manifest, example: Any, recorded: Mapping[str, str]) -> dict[str, str]:
    import platform
    from datetime import UTC, datetime

    signature = signature_of(manifest, str(version))
    body = example_body(example)
    told = {
        "model": version.model,
        "version": str(version.version),
        "hash": version.manifest,
        "author": version.author,
        "example": body,
        "widths": {name: str(dtype) for name, dtype in widths_of(example).items()},
    }
    trust = manifest.flavour == "pickle"
    image = "".join(c if c.isascii() and c.isalnum() else "-" for c in version.model.lower()).strip("-") or "model"
    request = ""
    if body is not None:
        shown = json.dumps(body, ensure_ascii=True).replace("'", "\\u0027")
        request = (
            f"\n```bash\ncurl http://127.0.0.1:{DEFAULT_PORT}/predict -H 'Content-Type: application/json' "
            f"-d '{shown}'\n```\n"
        )
    run = (manifest.run or {}).get("id")
    packages = requirements(manifest, recorded, is_table=signature.inputs.kind == "table")
    return {
        EXPORTED: json.dumps(told, ensure_ascii=False, indent=1) + "\n",
        "signature.json": json.dumps(signature.to_json(), ensure_ascii=False, indent=1) + "\n",
        "requirements.txt": "\n".join(packages) + "\n",
        "serve.py": _SERVE.format(port=DEFAULT_PORT),
        "Dockerfile": _DOCKERFILE.format(
            python=".".join(platform.python_version_tuple()[:2]),
            port=DEFAULT_PORT,
            trust=', "--trust"' if trust else "",
        ),
        "README.md": _README.format(
            ref=version,
            registered=f"{datetime.fromtimestamp(version.registered_at, UTC):%Y-%m-%d}",
            author=version.author,
            run=f" from run `{run}`" if run else "",
            hash=version.manifest,
            trust=" --trust" if trust else "",
            port=DEFAULT_PORT,
            image=f"{image}:{version.version}".replace("+", "-"),
            example=request,
            inputs=signature.describe_inputs(),
        ),
    }


def requirements(manifest: Manifest, recorded: Mapping[str, str], *, is_table: bool) -> list[str]:
    """Return what has to be installed, pinned: as it was when the model was made, else as it is installed here.

    Args:
        manifest: Of the version.
        recorded: Versions of packages by canonical name, as the run had them.
        is_table: Whether the model takes tables.
    """
    saved_with = {_canonical(name): version for name, version in (manifest.loading.get("versions") or {}).items()}
    names = [*_NEEDED.get(manifest.flavour, ("numpy",)), *(("pandas",) if is_table else ())]
    found = [f"runstone[serving]=={__version__}"]
    for name in names:
        version = saved_with.get(_canonical(name)) or recorded.get(_canonical(name)) or _installed(name)
        if version is not None:
            found.append(f"{name}=={version}")
    return found


def _recorded(workspace: Workspace, run_id: str | None) -> dict[str, str]:
    """Return the packages of a run by canonical name, as far as they are known."""
    if run_id is None:
        return {}
    try:
        environment = workspace.run(run_id).environment or {}
    except NotFound:
        return {}
    installed = (environment.get("packages") or {}).get("installed") or ()
    return {_canonical(str(entry["name"])): str(entry["version"]) for entry in installed if entry.get("version")}


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")
