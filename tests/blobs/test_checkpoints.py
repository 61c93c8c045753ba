"""Checkpoints by tensor: what stays the same is stored once, and every file comes back byte for byte."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone.blobs import Blobs

MIB = 1 << 20


def size_of(blobs: Blobs) -> int:
    return sum(status.st_size for _name, status in blobs.objects())


def check_whole(blobs: Blobs, path: Path) -> str:
    """Store a file and see that it comes back each way; return its hash."""
    entry = blobs.put(path, path.name)
    content = path.read_bytes()
    blobs.verify(entry.hash)
    assert blobs.read(entry.hash) == content
    assert blobs.local_path(entry.hash).read_bytes() == content
    blobs.copy_to(entry.hash, path.with_name("restored"), replace=True)
    assert path.with_name("restored").read_bytes() == content
    assert blobs.size(entry.hash) == entry.size_bytes == len(content)
    return entry.hash


def safetensors_file(path: Path, tensors: dict[str, bytes]) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors.values()))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_frozen_backbone_is_stored_once(blobs: Blobs, tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    backbone = {f"block.{number}.weight": torch.randn(256, 1024) for number in range(10)}
    backbone |= {f"block.{number}.bias": torch.randn(256) for number in range(10)}
    frozen = sum(tensor.numel() * 4 for tensor in backbone.values())
    count, head_bytes = 8, 0
    for step in range(count):
        head = {"head.weight": torch.randn(25, 1024)}
        head_bytes = 25 * 1024 * 4
        path = tmp_path / f"step-{step}"
        if kind == "torch":
            torch.save({"step": step, "lr": 0.1 / (step + 1), "model": backbone | head, "note": "x" * step}, path)
        else:
            pytest.importorskip("safetensors.torch").save_file(backbone | head, path, metadata={"step": str(step)})
        check_whole(blobs, path)
    assert size_of(blobs) < 1.3 * (frozen + count * head_bytes)


@pytest.mark.heavy
def test_optimizer_state_and_what_is_shared_come_back(blobs: Blobs, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Embedding(3000, 512), torch.nn.Linear(512, 512), torch.nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.arange(8)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "tied": model[1].weight}, path)
    content = check_whole(blobs, path)
    recipe = blobs.find_recipe(content)
    assert recipe is not None
    assert len(recipe.hashes) < 60  # not thousands of tiny files
    with blobs.open(content) as file:
        restored = torch.load(file, weights_only=True)
    assert torch.equal(restored["model"]["1.weight"], model[1].weight)
    assert torch.equal(restored["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.heavy
def test_lightning_checkpoints_share_their_backbone(blobs: Blobs, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    lightning = pytest.importorskip("lightning.pytorch")

    class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = torch.nn.Linear(1024, 1024)
            self.backbone.requires_grad_(False)
            self.head = torch.nn.Linear(1024, 4)

        def training_step(self, batch: Any, _number: int) -> Any:
            return self.head(self.backbone(batch[0])).pow(2).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.head.parameters())

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 1024)), batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    model = Model()

    class Save(lightning.Callback):  # type: ignore[misc,name-defined]
        def on_train_epoch_end(self, trainer: Any, _module: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    trainer.callbacks.append(Save())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Lightning says of its surroundings
        trainer.fit(model, data)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == 4
    for path in paths:
        check_whole(blobs, path)
    assert size_of(blobs) < 1.3 * 1024 * 1025 * 4 + 4 * (3 * 4 * 1025 * 4 + 30_000)


def test_recipe_says_of_which_parts_it_is(blobs: Blobs, tmp_path: Path) -> None:
    first, second = os.urandom(600_000), os.urandom(700_000)
    safetensors_file(tmp_path / "a", {"x": first, "y": second})
    content = check_whole(blobs, tmp_path / "a")
    told = json.loads((blobs.root / content[:2] / f"{content}.parts").read_text())
    assert told["format"] == 1
    assert told["size"] == (tmp_path / "a").stat().st_size == sum(part[1] for part in told["parts"])
    assert not (blobs.root / content[:2] / content).exists()
    data = b"".join(blobs.read(part[0])[(part[2:] or [0])[0] :][: part[1]] for part in told["parts"])
    assert data == (tmp_path / "a").read_bytes()
    names = {name for name, _status in blobs.objects()}
    assert blobs.put(tmp_path / "a", "again").hash == content
    assert {name for name, _status in blobs.objects()} == names


def test_thousands_of_small_tensors_make_few_files(blobs: Blobs, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "many", {f"t{number}": os.urandom(2_000) for number in range(4_000)})
    check_whole(blobs, tmp_path / "many")
    assert sum(1 for _ in blobs.objects()) < 60


def test_large_tensor_is_cut_and_parts_can_be_read_from_any_place(blobs: Blobs, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "large", {"a": os.urandom(100), "b": os.urandom(35 * MIB), "c": os.urandom(70_000)})
    content = check_whole(blobs, tmp_path / "large")
    whole = (tmp_path / "large").read_bytes()
    with blobs.open(content) as file:
        for place in (0, 7, 300, 16 * MIB - 3, 20 * MIB, len(whole) - 5, len(whole), len(whole) + 9):
            assert file.seek(place) == place
            assert file.read(1000) == whole[place : place + 1000]
        assert file.seek(-10, io.SEEK_END) == len(whole) - 10
        assert file.read() == whole[-10:]


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack("<Q", 1 << 60) + b"{" + bytes(2 * MIB),
        struct.pack("<Q", 10) + b'{"a": 1}  ' + bytes(2 * MIB),
        struct.pack("<Q", 60) + b'{"a":{"data_offsets":[0,99999999999]}}'.ljust(60) + bytes(2 * MIB),
        struct.pack("<Q", 60) + b'{"a":{"data_offsets":[-70,900000]}}'.ljust(60) + bytes(2 * MIB),
        struct.pack("<Q", 60) + b'{"a":{"data_offsets":[0,9]},"b":{"data_offsets":[5,9]}}'.ljust(60) + bytes(2 * MIB),
        struct.pack("<Q", MIB) + b"[" * MIB + bytes(2 * MIB),
        struct.pack("<Q", MIB) + b'{"a":' * (MIB // 5) + bytes(2 * MIB),
        b"PK\x03\x04" + bytes(2 * MIB),
        b"PK\x03\x04" + os.urandom(2 * MIB) + b"PK\x05\x06" + os.urandom(18),
    ],
)  # fmt: skip
def test_malformed_checkpoint_is_stored_whole(blobs: Blobs, tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "broken").write_bytes(broken)
    content = check_whole(blobs, tmp_path / "broken")
    assert blobs.find_recipe(content) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 200_000), min_size=1, max_size=12),
    place=st.integers(0, 10**9),
    byte=st.integers(0, 255),
    is_cut=st.booleans(),
)
def test_damaged_checkpoint_comes_back_as_it_was(
    tmp_path: Path, sizes: list[int], place: int, byte: int, is_cut: bool
) -> None:
    blobs = Blobs(tmp_path / "blobs")
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("a/data.pkl", b"no pickle")
        for number, size in enumerate(sizes):
            archive.writestr(f"a/data/{number}", os.urandom(size))
        archive.writestr("a/rest", bytes(MIB))
    data = bytearray((tmp_path / "file").read_bytes())
    place = place % 2000 if place % 2 else len(data) - 1 - place % 2000  # where the headers and the directory are
    data[place] = byte
    (tmp_path / "file").write_bytes(data[: place + 1] if is_cut and place > MIB else data)
    check_whole(blobs, tmp_path / "file")


def test_damaged_part_or_recipe_is_found_and_named(blobs: Blobs, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "a", {"x": os.urandom(600_000), "y": os.urandom(700_000)})
    content = blobs.put(tmp_path / "a", "a").hash
    recipe = blobs.find_recipe(content)
    assert recipe is not None
    part = max(recipe.parts, key=lambda part: part.size)
    place = blobs.object_path(part.hash)
    good = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(b"\0" + good[1:])
    for read in (blobs.verify, blobs.local_path, blobs.read):
        with pytest.raises(runstone.FormatError, match="damaged"):
            read(content)
    with pytest.raises(runstone.FormatError, match=part.hash):
        blobs.verify(content)
    place.write_bytes(good[:1000])
    with pytest.raises(runstone.FormatError, match="damaged"):
        blobs.read(content)
    place.unlink()
    assert content not in blobs
    with pytest.raises(runstone.NotFound):
        blobs.open(content)
    blobs.put(tmp_path / "a", "a")  # heals it
    blobs.verify(content)
    told = blobs.object_path(f"{content}.parts")
    told.chmod(0o644)
    for damage in (b"", b"{}", b"[]", b'{"format":1,"size":3,"parts":[["x",3]]}', b'{"format":1,"size":-1,"parts":[]}'):
        told.write_bytes(damage)
        with pytest.raises(runstone.FormatError):
            blobs.verify(content)
    blobs.put(tmp_path / "a", "a")
    blobs.verify(content)


def test_artifacts_in_parts_are_read_like_others(tmp_path: Path) -> None:
    safetensors_file(tmp_path / "model.safetensors", {"x": os.urandom(2 * MIB)})
    with runstone.start_run(environment=False) as run:
        artifact = run.log_artifact(tmp_path / "model.safetensors")
    assert artifact is not None
    path = run.workspace.blobs.local_path(artifact.files[0].hash)
    assert path.read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert path.stat().st_mode & 0o222 == 0
