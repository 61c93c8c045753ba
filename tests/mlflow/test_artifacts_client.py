"""Files as MLflow's own client sends and fetches them: in parts, by ranges, under any name."""

from __future__ import annotations

from tests.mlflow.conftest import Real

# A file in parts is sent by several threads, each part to an address of its own.
IN_PARTS = {
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1000000",
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "1048576",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
    "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": "3000000",
}
SEND_AND_FETCH = """
import hashlib, os, pathlib, tempfile
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository as Repository
sent, fetched = [], []
for name, kept in {"create_multipart_upload": sent, "_multipart_download": fetched}.items():
    def noted(self, *args, _whole=getattr(Repository, name), _kept=kept, **named):
        _kept.append(1)
        return _whole(self, *args, **named)
    setattr(Repository, name, noted)
folder = pathlib.Path(tempfile.mkdtemp())
large = folder / "large ü+1.bin"
data = os.urandom(30_000_000)
large.write_bytes(data)
(folder / "small.txt").write_text("small")
with mlflow.start_run() as run:
    mlflow.log_artifact(str(large), "deep/er")
    mlflow.log_artifact(str(folder / "small.txt"))
    mlflow.log_artifact(str(large), "again")
model = client.create_logged_model("0", name="net", source_run_id=run.info.run_id)
mlflow.MlflowClient().log_model_artifact(model.model_id, str(large))
back = {}
for path in ("deep/er/large ü+1.bin", "again/large ü+1.bin", "small.txt"):
    there = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path)
    back[path] = pathlib.Path(there).read_bytes() in (data, b"small")
client.finalize_logged_model(model.model_id, "READY")
there = pathlib.Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
back["model"] = [one.name for one in there.iterdir()] == [large.name] and (there / large.name).read_bytes() == data
print(json.dumps({
    "run": run.info.run_id, "sent": len(sent), "fetched": len(fetched), "back": back,
    "sizes": [one.file_size for one in client.list_artifacts(run.info.run_id, "deep/er")],
}))
"""


def test_large_files_go_up_in_parts_and_come_down_by_ranges(real: Real) -> None:
    found = real.do(SEND_AND_FETCH, **IN_PARTS)
    assert (found["sent"], found["fetched"]) == (3, 4), "the client sent and fetched in one piece"
    assert found["back"] == dict.fromkeys(["deep/er/large ü+1.bin", "again/large ü+1.bin", "small.txt", "model"], True)
    assert found["sizes"] == [30_000_000]
    own = real.workspace.run(found["run"])
    hashes = {entry.hash for artifact in own.artifacts for entry in artifact.files if entry.size_bytes == 30_000_000}
    assert len(hashes) == 1
    assert len([name for name, stat in real.workspace.blobs.objects() if stat.st_size == 30_000_000]) == 1
    left = [path for path in (real.workspace.path / "mlflow" / "uploads").iterdir() if path.is_dir()]
    assert left == []
