"""Tensors on a GPU are never waited for, and are in the file at the latest when the run ends, in order."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.runlog.devices import CudaCopies, start_copy
from runstone.runlog.pending import Pending

Event = Callable[[], bool]


class Tensor:
    """Stands for a tensor in the memory of a device that this machine lacks. Whoever asks for its number fails."""

    is_cuda = True
    shape = ()

    def __init__(self, number: Any, event: Event = lambda: True) -> None:
        self.number = number
        self.event = event

    def item(self) -> float:
        raise AssertionError("the training thread would wait for the GPU here")

    __float__ = __index__ = __array__ = item  # type: ignore[assignment]


class Copy:
    """A copy of a `Tensor`: there when its event says so."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def is_done(self) -> bool:
        return self._tensor.event()

    def value(self) -> Any:
        assert self._tensor.event()
        return self._tensor.number


@pytest.fixture(params=["mmap", "append"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> runstone.Run:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    run = runstone.start_run(environment=False)
    pending(run).start_copy = lambda name, tensor: Copy(tensor)
    return run


def pending(run: runstone.Run) -> Pending:
    found = run._log.points._pending  # type: ignore[attr-defined]
    assert isinstance(found, Pending)
    return found


def steps_and_values(run: runstone.Run, name: str) -> list[tuple[int, Any]]:
    series = run.read().series(name)
    return list(zip(series.step.tolist(), series.value.tolist(), strict=True))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_values_come_when_the_gpu_is_done_without_anybody_asking(run: runstone.Run) -> None:
    is_done = threading.Event()
    before = time.time()
    run.log({"loss": Tensor(0.5, is_done.is_set), "cpu": 1.0}, step=3)
    after = time.time()
    assert list(run.read().metrics) == ["cpu"]
    is_done.set()
    wait_until(lambda: "loss" in run.read().metrics)  # the keeper wrote it
    assert steps_and_values(run, "loss") == [(3, 0.5)]
    assert before <= run.read().series("loss").wall_s[0] <= after  # when it was logged, not when it came


def test_order_within_a_metric_is_kept_when_values_of_all_kinds_follow(run: runstone.Run) -> None:
    is_done = threading.Event()
    run.log({"x": 0.0, "other": 0.0}, step=0)
    run.log({"x": 1.0, "other": 1.0}, step=1)
    run.log({"x": Tensor(2.0, is_done.is_set), "other": 2.0}, step=2)
    run.log({"x": 3.0, "other": 3.0}, step=3)
    run.metric("x")(4.0, step=4)
    run.log({"x": 5}, step=5)
    run.log_series("x", [6, 7], [6.0, 7.0])
    run.log({"x": Tensor(8.0)}, step=8)
    run.log({"n": {"x": Tensor(1.5, is_done.is_set)}}, step=8)
    run.log({"n": {"x": 2.5}}, step=9)
    assert steps_and_values(run, "x") == [(0, 0.0), (1, 1.0)]
    assert steps_and_values(run, "other") == [(step, float(step)) for step in range(4)]
    is_done.set()
    run.finish()
    assert steps_and_values(run, "x") == [(step, float(step)) for step in range(9)]
    assert steps_and_values(run, "n/x") == [(8, 1.5), (9, 2.5)]
    assert run.dropped == 0


def test_metric_goes_the_short_way_again_once_nothing_waits(run: runstone.Run) -> None:
    for step in range(100):
        run.log({"x": Tensor(float(step)) if step % 10 == 0 else float(step)}, step=step)
        if step == 50:
            wait_until(lambda: len(pending(run)) == 0)
            run.log({"y": 1.0})
    run.finish()
    assert steps_and_values(run, "x") == [(step, float(step)) for step in range(100)]


def test_end_waits_for_the_gpu(run: runstone.Run) -> None:
    is_done = threading.Event()
    timer = threading.Timer(0.3, is_done.set)
    run.log({"x": Tensor(1.0, is_done.is_set)})
    timer.start()
    run.finish()
    timer.join()
    assert steps_and_values(run, "x") == [(0, 1.0)]


def test_gpu_that_never_comes_holds_up_the_end_for_a_bounded_time_and_is_counted(
    run: runstone.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runstone.run, "_FLUSH_S", 0.2)
    run.log({"x": Tensor(1.0, lambda: False), "y": Tensor(2.0)}, step=0)
    run.log({"x": 3.0}, step=1)
    begin = time.monotonic()
    with pytest.warns(runstone.TrackingWarning, match=r"1 values are lost: .* not done 0.2 s after the end"):
        run.finish()
    assert 0.2 <= time.monotonic() - begin < 5
    info = run.read()
    assert steps_and_values(run, "x") == [(1, 3.0)]
    assert steps_and_values(run, "y") == [(0, 2.0)]
    assert info.dropped == run.dropped == 1
    assert "values are lost" in info.warnings[0]


def test_device_in_trouble_costs_its_own_values_only(run: runstone.Run) -> None:
    def fail() -> bool:
        raise RuntimeError("CUDA error: device-side assert triggered")

    run.log({"x": Tensor(1.0, fail), "y": Tensor("not a number"), "z": Tensor(0.25)})
    wait_until(lambda: len(pending(run)) == 0)
    with pytest.warns(runstone.TrackingWarning, match="1 values are lost: the GPU failed"):
        run.finish()
    info = run.read()
    assert info.series("z").value.tolist() == [0.25]
    assert "x" not in info.metrics
    assert info.dropped == 1


@pytest.mark.parametrize("step", [1.5, "3", 2**63])
def test_mistakes_are_told_by_the_call_that_made_them(run: runstone.Run, step: Any) -> None:
    with pytest.raises(runstone.InvalidValue, match="step must be"):
        run.log({"x": Tensor(1.0)}, step=step)
    with pytest.raises(runstone.InvalidName):
        run.log({"": Tensor(1.0)})
    run.finish()
    assert not run.read().metrics


def test_thousands_that_wait_come_out_in_order_without_a_keeper(run: runstone.Run) -> None:
    is_done = threading.Event()
    for step in range(6000):
        run.log({"x": Tensor(float(step), is_done.is_set)}, step=step)
        if step == 5000:
            is_done.set()
    run.finish()
    assert steps_and_values(run, "x") == [(step, float(step)) for step in range(6000)]


def test_threads_that_log_to_one_metric_lose_nothing(run: runstone.Run) -> None:
    def log(thread: int) -> None:
        for step in range(2000):
            number = float(thread * 10_000 + step)
            run.log({"x": Tensor(number) if step % 3 == 0 else number, "y": number}, step=step)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    values = run.read().series("x").value
    assert np.array_equal(np.sort(values), np.sort([t * 10_000.0 + s for t in range(4) for s in range(2000)]))
    for number in range(4):
        own = values[(values >= number * 10_000) & (values < number * 10_000 + 2000)]
        assert (np.diff(own) > 0).all()  # in the order in which the thread logged them
    assert len(run.read().series("y")) == 8000


def test_forked_child_leaves_the_values_of_its_parent_to_it(run: runstone.Run) -> None:
    is_done = threading.Event()
    run.log({"x": Tensor(1.0, is_done.is_set)}, step=0)
    pid = os.fork()
    if pid == 0:
        try:
            run.log({"child": 1.0})
            run.finish()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    is_done.set()
    run.finish()
    assert steps_and_values(run, "x") == [(0, 1.0)]
    assert steps_and_values(run, "child")[0][1] == 1.0


def test_signal_handler_that_ends_the_run_in_the_middle_of_a_write_does_not_hang(run: runstone.Run) -> None:
    found = pending(run)
    lost: list[int] = []
    found.add("x", Tensor(1.0), lambda _value: lost.append(found.flush(60.0)))
    wait_until(lambda: lost == [0])
    assert len(found) == 0


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_tensors_of_torch_go_through_cells_of_their_type(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")

    class OnGpu(torch.Tensor):  # type: ignore[misc, name-defined]
        is_cuda = True

    pending(run).start_copy = CudaCopies(pin_memory=False).start
    tensors = {
        "float32": torch.tensor(0.1),
        "bfloat16": torch.tensor(0.1, dtype=torch.bfloat16),
        "float64": torch.tensor(0.1, dtype=torch.float64, requires_grad=True) * 2,
        "int": torch.tensor(2**53 + 1),
        "bool": torch.tensor(True),
        "unsigned": torch.tensor(3 * 2**62, dtype=torch.uint64),
        "turned": torch.tensor(1 + 2j).conj().imag,
        "one": torch.full((1, 1), 0.5),
    }
    with torch.inference_mode():
        tensors["inference"] = torch.tensor(3.0)
        run.log({name: tensor.as_subclass(OnGpu) for name, tensor in tensors.items()}, step=0)
    for step in range(1, 1000):
        run.log({"many": torch.tensor(float(step)).as_subclass(OnGpu)}, step=step)
    with pytest.raises(runstone.InvalidValue, match=r"must be one number, got OnGpu of shape \(3,\)"):
        run.log({"x": torch.ones(3).as_subclass(OnGpu)})
    with pytest.raises(runstone.InvalidValue, match="complex"):
        run.log({"x": torch.tensor(1j).as_subclass(OnGpu)})
    run.finish()
    info = run.read()
    assert {name: info.series(name).value.tolist()[0] for name in tensors} == {
        "float32": float(np.float32(0.1)),
        "bfloat16": 0.10009765625,
        "float64": 0.2,
        "int": 2**53 + 1,
        "bool": True,
        "unsigned": 3.0 * 2**62,  # a float, as any integer of more than 63 bits
        "turned": -2.0,
        "one": 0.5,
        "inference": 3.0,
    }
    assert info.series("many").value.tolist() == [float(step) for step in range(1, 1000)]


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")  # torch says so of the mode itself
def test_cuda_tensors_never_make_the_training_thread_wait(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pending(run).start_copy = start_copy
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = torch.zeros((), device="cuda")
        handle = run.metric("handle")
        for step in range(2000):
            loss = loss + 1.0
            run.log({"loss": loss, "half": loss.half(), "count": loss.long(), "cpu": float(step)}, step=step)
            handle(loss, step=step)
            if step % 100 == 0:
                run.log({"loss": -1.0}, step=step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.finish()
    expected = [value for step in range(2000) for value in ([step + 1.0] + [-1.0] * (step % 100 == 0))]
    info = run.read()
    assert info.series("loss").value.tolist() == expected
    assert info.series("handle").value.tolist() == [step + 1.0 for step in range(2000)]
    assert info.series("count").value.tolist() == list(range(1, 2001))
    assert info.series("half").step.tolist() == list(range(2000))
    assert info.dropped == 0


@pytest.mark.heavy
def test_capture_of_a_cuda_graph_is_not_disturbed(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pending(run).start_copy = start_copy
    weight = torch.ones((), device="cuda")
    for step in range(20):
        run.log({"x": weight}, step=step)
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            run.log({"y": weight}, step=step)  # waits while the capture below goes on
        time.sleep(0.01)
        with torch.cuda.graph(graph):
            result = weight + 1
            with pytest.raises(runstone.InvalidValue, match="being captured"):
                run.log({"inside": result}, step=step)
            time.sleep(0.06)  # the keeper looks meanwhile
        graph.replay()
        run.log({"result": result}, step=step)
    run.finish()
    info = run.read()
    assert info.series("result").value.tolist() == [2.0] * 20
    assert len(info.series("x")) == len(info.series("y")) == 20


@pytest.mark.heavy
def test_a_gpu_that_is_busy_holds_up_no_log_call(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pending(run).start_copy = start_copy
    run.log({"warm-up": torch.ones((), device="cuda")})
    run._log.points.flush(10.0)
    torch.cuda._sleep(2_000_000_000)  # about a second
    value = torch.ones((), device="cuda")
    begin = time.perf_counter()
    for step in range(100):
        run.log({"x": value}, step=step)
    assert time.perf_counter() - begin < 0.5
    run.finish()
    assert len(run.read().series("x")) == 100


# --- JAX, TensorFlow, CuPy -------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_jax_arrays_are_not_waited_for(run: runstone.Run) -> None:
    jax = pytest.importorskip("jax")
    pending(run).start_copy = start_copy
    numpy = jax.numpy
    size = 400 if jax.default_backend() == "cpu" else 8192
    big = numpy.ones((size, size))

    @jax.jit  # type: ignore[untyped-decorator]
    def slow(matrix: Any) -> Any:
        for _ in range(20):
            matrix = (matrix @ matrix) * 1e-3
        return matrix.mean()

    slow(big).astype(numpy.bfloat16).block_until_ready()  # compiled
    for step in range(3):
        value = slow(big)
        values = {"loss": value, "half": value.astype(numpy.bfloat16), "count": numpy.array(step)}
        was_ready = value.is_ready()
        run.log(values, step=step)
        assert was_ready or not value.is_ready()  # the call returned before it was computed
    run.log({"loss": 1.0}, step=3)
    with pytest.raises(runstone.InvalidValue, match="must be one number"):
        run.log({"x": slow(big) + numpy.ones(3)})
    run.finish()
    info = run.read()
    assert info.series("loss").step.tolist() == [0, 1, 2, 3]
    assert info.series("loss").value.tolist()[:3] == [float(slow(big))] * 3
    assert info.series("count").value.tolist() == [0, 1, 2]
    assert info.dropped == 0


class Fetched:
    """Stands for a tensor of TensorFlow on a GPU: whoever asks it waits, and only the keeper may."""

    device = "/job:localhost/replica:0/task:0/device:GPU:0"
    shape = ()
    dtype = "float32"

    def __init__(self, number: float) -> None:
        self._number = number
        self.asked_by: list[str] = []

    def numpy(self) -> Any:
        self.asked_by.append(threading.current_thread().name)
        return np.float32(self._number)

    def __float__(self) -> float:
        raise AssertionError("the training thread would wait for the GPU here")


def test_tensors_that_tell_nothing_are_fetched_by_the_keeper(run: runstone.Run) -> None:
    pending(run).start_copy = start_copy
    tensor = Fetched(0.5)
    run.log({"x": tensor}, step=0)
    wait_until(lambda: "x" in run.read().metrics)
    assert tensor.asked_by == ["runstone-keeper"]
    run.finish()
    assert steps_and_values(run, "x") == [(0, 0.5)]


class OnDevice:
    """Stands for an array of CuPy, which its owner goes on to change."""

    __cuda_array_interface__: dict[str, Any] = {}
    shape = (1,)
    dtype = "float64"

    def __init__(self, number: float) -> None:
        self.number = number

    def copy(self) -> OnDevice:
        return OnDevice(self.number)

    def item(self) -> float:
        return self.number

    def __iadd__(self, other: float) -> OnDevice:
        self.number += other
        return self


def test_arrays_that_are_changed_after_the_call_are_kept_as_they_were(run: runstone.Run) -> None:
    pending(run).start_copy = start_copy
    value = OnDevice(0.0)
    for step in range(100):
        run.log({"x": value}, step=step)
        value += 1.0
    run.finish()
    assert steps_and_values(run, "x") == [(step, float(step)) for step in range(100)]


def test_logging_plain_values_loads_no_torch(tmp_path: Path) -> None:
    import subprocess

    code = f"""
import sys, runstone
with runstone.start_run(workspace={str(tmp_path / "w")!r}, environment=False) as run:
    run.log({{"x": 1.0, "n": 2, "text": "a"}})
    run.log_text("t", "b")
print(*({{"torch", "numpy", "pyarrow", "PIL"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
