"""What storing files costs beside reading and hashing them once, and how little twenty checkpoints take."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from benchmarks.measure import show
from runstone.blobs import Blobs
from runstone.blobs.statcache import StatCache


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        _files(Path(folder), count=200 if quick else 10_000, size=100_000)
    with tempfile.TemporaryDirectory() as folder:
        _checkpoints(Path(folder), count=3 if quick else 20, mib=4 if quick else 100)


def _files(folder: Path, *, count: int, size: int) -> None:
    tree = folder / "tree"
    tree.mkdir()
    paths = [tree / f"{number:05}" for number in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(size))
    os.sync()
    blobs = Blobs(folder / "blobs")
    cache = StatCache(folder / "cache" / "tree")
    hashes: list[str] = []
    time.sleep(0.05)  # files that were just written are not remembered

    def read_and_hash() -> None:
        for path in paths:
            blake3(path.read_bytes()).hexdigest()

    def put() -> None:
        read_at_ns = time.time_ns()
        states = [path.stat() for path in paths]
        hashes[:] = [entry.hash for entry in blobs.put_all((path, path.name) for path in paths)]
        for state, content in zip(states, hashes, strict=True):
            cache.remember(state, content, read_at_ns=read_at_ns)
        cache.save()

    def write_and_sync() -> None:
        (folder / "copy").mkdir()
        for path in paths:
            data = path.read_bytes()
            blake3(data).hexdigest()
            (folder / "copy" / path.name).write_bytes(data)
        os.sync()

    def unchanged() -> None:
        known = StatCache(folder / "cache" / "tree")
        found = [known.find(path.stat()) for path in paths]
        if found != hashes:
            raise AssertionError("the cache forgot")

    subjects: dict[str, Callable[[], object]] = {
        "read and hash once": read_and_hash,
        "read, hash, write a copy, sync": write_and_sync,
        "Blobs.put_all": put,
        "Blobs.put_all again (all there)": lambda: blobs.put_all((path, path.name) for path in paths),
        "StatCache, all unchanged": unchanged,
        "stat calls alone": lambda: [path.stat() for path in paths],
    }
    taken = {name: _seconds(subject) for name, subject in subjects.items()}
    show(f"{count} files of {size:,} bytes", taken, floor="read and hash once", unit_s=1.0, unit="s")


def _checkpoints(folder: Path, *, count: int, mib: int) -> None:
    backbone = [os.urandom(mib << 18) for _ in range(4)]
    head_bytes = (mib << 20) // 100
    blobs = Blobs(folder / "blobs")
    seconds = 0.0
    for step in range(count):
        tensors = [*backbone, os.urandom(head_bytes)]
        names = ",".join(f'"t{number}":{_told(tensors, number)}' for number in range(len(tensors)))
        text = f'{{"__metadata__":{{"step":"{step}"}},{names}}}'.encode()
        path = folder / "checkpoint"
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors))
        seconds += _seconds(lambda path=path: blobs.put(path, "checkpoint"))  # type: ignore[misc]
    stored = sum(status.st_size for _name, status in blobs.objects())
    least = (mib << 20) + count * head_bytes
    print(
        f"\n{count} checkpoints of {mib} MiB with a head of {head_bytes / 1e6:.1f} MB that changes\n"
        f"  stored: {stored / 1e6:.1f} MB, {stored / least:.3f} × what differs, in {seconds / count * 1e3:.0f} ms each"
    )


def _told(tensors: list[bytes], number: int) -> str:
    begin = sum(len(tensor) for tensor in tensors[:number])
    size = len(tensors[number])
    return f'{{"dtype":"U8","shape":[{size}],"data_offsets":[{begin},{begin + size}]}}'


def _seconds(subject: Callable[[], object]) -> float:
    start = time.perf_counter()
    subject()
    return time.perf_counter() - start
