"""`track_module` and `tracked` in real loops of torch."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import re
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

torch = pytest.importorskip("torch")

import torch.optim.optimizer as optimizer_module  # noqa: E402
from torch.nn.modules import module as module_hooks  # noqa: E402

import runstone  # noqa: E402
from runstone_integrations.pytorch import log_optimizer, track_module, tracked  # noqa: E402

COMPILING = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # by torch, in what it compiles
DOCS = Path(__file__).parents[2] / "docs" / "pytorch.md"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_hook_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert hooks() == 0


@pytest.fixture
def run() -> Iterator[runstone.Run]:
    with runstone.start_run(environment=False) as run:
        yield run


def hooks() -> int:
    """Return how many hooks for all optimizers and modules there are."""
    return sum(
        len(each)
        for each in (
            optimizer_module._global_optimizer_pre_hooks,
            optimizer_module._global_optimizer_post_hooks,
            module_hooks._global_forward_hooks,
            module_hooks._global_forward_pre_hooks,
            module_hooks._global_backward_hooks,
        )
    )


def make_model() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def train(model: Any, optimizer: Any, *, steps: int = 1, accumulate: int = 1, each: Callable[[], Any] = int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(accumulate):
            model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        each()


def sgd(model: Any, rate: float = 0.1) -> Any:
    return torch.optim.SGD(model.parameters(), rate)


def norm_of(tensors: Any) -> float:
    return float(torch.cat([each.detach().flatten() for each in tensors]).norm())


def steps(run: runstone.Run, name: str) -> list[int]:
    return run.read().series(name).step.tolist()


def values(run: runstone.Run, name: str) -> list[float]:
    return run.read().series(name).value.tolist()


# --- the module ------------------------------------------------------------------------------------------------------


def test_norms_are_those_of_the_gradients_that_the_optimizer_used(run: runstone.Run) -> None:
    model = make_model()
    optimizer, expected = sgd(model), []
    with track_module(model, every_n_steps=2, weights=True):
        train(model, optimizer, steps=4, each=lambda: expected.append([p.grad.clone() for p in model.parameters()]))
    due = [expected[1], expected[3]]
    assert steps(run, "gradients/norm") == [1, 3]
    assert values(run, "gradients/norm") == pytest.approx([norm_of(each) for each in due])
    assert values(run, "gradients/norm/0") == pytest.approx([norm_of(each[:2]) for each in due])
    assert values(run, "gradients/norm/2") == pytest.approx([norm_of(each[2:]) for each in due])
    assert values(run, "weights/norm")[-1] == pytest.approx(norm_of(model.parameters()))
    assert values(run, "optimizer/learning_rate") == [0.1, 0.1]


def test_norms_of_each_parameter_are_told_apart_where_wanted(run: runstone.Run) -> None:
    model = make_model()
    with track_module(model, every_n_steps=1, detail="parameters"):
        train(model, sgd(model))
    (value,) = values(run, "gradients/norm/0.bias")
    assert value == pytest.approx(norm_of([model[0].bias.grad]))
    assert "gradients/norm/2.weight" in run.read().metrics
    assert not any(name.startswith("weights/") for name in run.read().metrics)


def test_accumulated_gradients_are_one_row_an_optimizer_step(run: runstone.Run) -> None:
    model = make_model()
    with track_module(model, every_n_steps=1):
        train(model, sgd(model), steps=3, accumulate=4)
    assert steps(run, "gradients/norm") == [0, 1, 2]


def test_steps_of_the_loop_itself_are_not_disturbed(run: runstone.Run) -> None:
    model = make_model()
    optimizer = sgd(model)
    with track_module(model, every_n_steps=2):
        for _ in tracked([torch.zeros(1)] * 5, every_n_steps=2):
            train(model, optimizer, each=lambda: run.log({"loss": 1.0}))
    assert steps(run, "loss") == [0, 1, 2, 3, 4]
    assert steps(run, "gradients/norm") == [1, 3]
    assert steps(run, "train/step_s") == [1, 3, 4]


def test_clipped_gradients_are_recorded_before_the_clipping_where_the_loop_says_step(run: runstone.Run) -> None:
    model = make_model()
    optimizer = sgd(model)
    with track_module(model, every_n_steps=1) as tracker:
        for _ in range(3):
            optimizer.zero_grad()
            (1000 * model(torch.randn(16, 4))).square().mean().backward()
            tracker.step()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    assert steps(run, "gradients/norm") == [0, 1, 2]
    assert min(values(run, "gradients/norm")) > 0.5
    clipped = make_model()
    optimizer = sgd(clipped)
    with track_module(clipped, every_n_steps=1, first_step=10):
        clipped(torch.full((16, 4), 1000.0)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(clipped.parameters(), 0.5)
        optimizer.step()
    assert values(run, "gradients/norm")[-1] == pytest.approx(0.5, rel=1e-4)
    assert steps(run, "gradients/norm")[-1] == 10


def test_two_optimizers_of_one_module_count_their_own_steps(run: runstone.Run) -> None:
    model = make_model()
    first, second = sgd(model[0], 0.1), torch.optim.Adam(model[2].parameters(), 0.01)
    with track_module(model, every_n_steps=1):
        for _ in range(2):
            model(torch.randn(16, 4)).square().mean().backward()
            first.step()
            second.step()
    info = run.read()
    for name in ("gradients/norm", "gradients/norm-2", "optimizer/learning_rate", "optimizer-2/learning_rate"):
        assert steps(run, name) == [0, 1], name
    assert values(run, "gradients/norm")[-1] == pytest.approx(norm_of(p.grad for p in model[0].parameters()))
    assert values(run, "gradients/norm-2")[-1] == pytest.approx(norm_of(p.grad for p in model[2].parameters()))
    assert info.params["pytorch"]["optimizer-2"]["class"] == "torch.optim.adam.Adam"


def test_optimizers_of_other_models_are_left_alone(run: runstone.Run) -> None:
    model, other = make_model(), make_model()
    with track_module(model, every_n_steps=1):
        train(other, torch.optim.Adam(other.parameters()), steps=3)
        train(model, sgd(model))
    assert steps(run, "gradients/norm") == steps(run, "optimizer/learning_rate") == [0]
    assert run.read().params["pytorch"]["optimizer"]["class"] == "torch.optim.sgd.SGD"


def test_lbfgs_which_computes_gradients_within_its_step_is_one_row_a_step(run: runstone.Run) -> None:
    model = make_model()
    optimizer, x = torch.optim.LBFGS(model.parameters(), max_iter=3), torch.randn(16, 4)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    with track_module(model, every_n_steps=1):
        optimizer.step(closure)
        optimizer.step(closure)
    assert steps(run, "gradients/norm") == [0, 1]


def test_half_precision_and_sparse_gradients_have_their_true_norm(run: runstone.Run) -> None:
    model = torch.nn.ModuleDict(
        {"small": torch.nn.Linear(2, 1, bias=False), "rows": torch.nn.Embedding(5, 1, sparse=True)}
    )
    model["small"].half()
    with track_module(model, every_n_steps=1, histograms=True) as tracker:
        model["small"].weight.grad = torch.full((1, 2), 30_000.0, dtype=torch.float16)
        model["rows"](torch.tensor([1, 1, 2])).sum().backward()  # row 1 twice: its gradient is 2
        tracker.step()
    assert values(run, "gradients/norm/small") == pytest.approx([30_000 * 2**0.5])
    assert values(run, "gradients/norm/rows") == pytest.approx([5**0.5])


def test_histograms_come_on_due_steps_only_and_from_a_bounded_number_of_values(run: runstone.Run) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 300), torch.nn.Linear(300, 300), torch.nn.Linear(300, 1))
    with track_module(model, every_n_steps=2, weights=True, histograms=True):
        train(model, sgd(model), steps=4)
    info = run.read()
    small, large = info.records("gradients/0"), info.records("weights/1")
    assert [record.step for record in small] == [1, 3]
    assert small[-1].metadata["count"] == 4 * 300 + 300
    assert 40_000 < large[-1].metadata["count"] <= 65_536  # of 90,300
    assert large[-1].metadata["max"] <= float(model[1].weight.detach().max())
    gradients = torch.cat([p.grad.flatten() for p in model[0].parameters()])
    assert small[-1].metadata["max"] == pytest.approx(float(gradients.max()))


def test_table_of_layers_has_the_shapes_of_the_first_batch_where_wanted(run: runstone.Run) -> None:
    model = make_model()
    with track_module(model, graph=True):
        before = copy.deepcopy(model), pickle.dumps(model)  # while the shapes are waited for
        model(torch.zeros(3, 4))
        model(torch.zeros(5, 4))
    (record,) = run.read().records("model/layers")
    lines = record.text.splitlines()
    assert re.split(r"\s{2,}", lines[2]) == ["0", "torch.nn.modules.linear.Linear", "40", "40", "3×4", "3×8"]
    assert re.split(r"\s{2,}", lines[1]) == ["(all)", "torch.nn.modules.container.Sequential", "49", "49", "3×4", "3×1"]
    assert b"runstone" not in before[1]
    assert not before[0]._forward_hooks


def test_table_without_shapes_is_there_at_once_and_facts_are_params(run: runstone.Run) -> None:
    model = make_model()
    model[0].requires_grad_(False)
    with track_module(model):
        (record,) = run.read().records("model/layers")
        train(model, torch.optim.AdamW(model.parameters(), 0.003, weight_decay=0.5))
    assert "torch.nn.modules.linear.Linear" in record.text
    assert "×" not in record.text
    told = run.read().params["pytorch"]
    assert told["model"] == {
        "class": "torch.nn.modules.container.Sequential",
        "params_total": 49,
        "params_trainable": 9,
    }
    assert (told["optimizer"]["class"], told["optimizer"]["lr"]) == ("torch.optim.adamw.AdamW", 0.003)
    assert told["optimizer"]["weight_decay"] == 0.5


def test_settings_of_param_groups_are_told_by_group(run: runstone.Run) -> None:
    model = make_model()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": torch.tensor(0.2)}]
    log_optimizer(torch.optim.Adam(groups), name="generator")
    told = run.read().params["pytorch"]["generator"]["groups"]
    assert [group["lr"] for group in told] == pytest.approx([0.1, 0.2])
    assert [group["parameters"] for group in told] == [40, 9]


def test_copies_pickles_files_and_states_of_the_module_are_those_without_it(run: runstone.Run, tmp_path: Path) -> None:
    model = make_model()
    plain_pickle, plain_keys, plain_names = pickle.dumps(model), list(model.state_dict()), set(vars(model))
    with track_module(model, every_n_steps=1, weights=True, histograms=True, graph=True):
        assert pickle.dumps(model) == plain_pickle
        assert list(model.state_dict()) == plain_keys
        assert set(vars(model)) == plain_names
        assert not any(vars(layer)[name] for layer in model.modules() for name in vars(layer) if "hooks" in name)
        torch.save(model, tmp_path / "model.pt")
        twin = copy.deepcopy(model)
        train(twin, sgd(twin))
    assert "gradients/norm" not in run.read().metrics
    script = "import sys, torch\ntorch.load(sys.argv[1], weights_only=False)\nprint('runstone' in str(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_results_are_bit_equal_with_and_without() -> None:
    def weights(*, is_tracked: bool) -> Any:
        torch.manual_seed(3)
        model = make_model()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        loader = torch.utils.data.DataLoader(torch.randn(64, 4), batch_size=8, shuffle=True)
        with runstone.start_run(environment=False):
            tracker = track_module(model, every_n_steps=1, weights=True, histograms=True, graph=True)
            if not is_tracked:
                tracker.close()
            for x in tracked(loader, every_n_steps=1) if is_tracked else loader:
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
            tracker.close()
        return [*model.parameters(), torch.rand(3)]

    assert all(torch.equal(a, b) for a, b in zip(weights(is_tracked=True), weights(is_tracked=False), strict=True))


def test_everything_is_removed_on_close_and_with_the_model(run: runstone.Run) -> None:
    model = make_model()
    tracker = track_module(model, every_n_steps=1, graph=True)
    assert hooks() == 2
    tracker.close()
    tracker.close()
    assert hooks() == 0
    train(model, sgd(model))
    assert "gradients/norm" not in run.read().metrics
    alive = weakref.ref(model)
    track_module(model)  # and its result dropped: it goes on
    assert hooks() == 1
    del model, tracker
    gc.collect()
    assert alive() is None
    assert hooks() == 0


def test_tracking_a_model_again_ends_the_tracking_before(run: runstone.Run) -> None:
    model = make_model()
    track_module(model, every_n_steps=1)
    with track_module(model, every_n_steps=1):
        assert hooks() == 1
        train(model, sgd(model))
    assert steps(run, "gradients/norm") == [0]


@COMPILING
def test_compiled_and_wrapped_modules_have_their_own_names(run: runstone.Run) -> None:
    inner = make_model()
    model = torch.compile(inner, backend="eager")
    with track_module(model, every_n_steps=1, graph=True):
        train(model, sgd(model), steps=2)
    assert steps(run, "gradients/norm/0") == [0, 1]
    assert "×" not in run.read().records("model/layers")[0].text
    parallel = torch.nn.DataParallel(make_model())
    with track_module(parallel, every_n_steps=1, first_step=5):
        train(parallel, sgd(parallel))
    assert steps(run, "gradients/norm/0") == [0, 1, 5]


@COMPILING
def test_compiled_optimizer_steps_are_taken_by_hand_and_break_nothing(run: runstone.Run) -> None:
    model = make_model()
    optimizer = sgd(model)
    compiled = torch.compile(optimizer.step, backend="eager")
    with track_module(model, every_n_steps=1) as tracker:
        for _ in range(2):
            model(torch.randn(16, 4)).square().mean().backward()
            tracker.step()
            compiled()
    assert steps(run, "gradients/norm") == [0, 1]


def test_sharded_modules_and_wrong_options_are_refused(run: runstone.Run) -> None:
    model = make_model()
    model[0].weight.ds_id = 3  # as DeepSpeed ZeRO marks what it has taken apart
    with pytest.raises(runstone.InvalidValue, match=r"Sequential is sharded .*in torch.nn.modules.linear.Linear"):
        track_module(model)
    with pytest.raises(runstone.InvalidValue, match="every_n_steps"):
        track_module(make_model(), every_n_steps=0)
    with pytest.raises(runstone.InvalidValue, match="detail"):
        track_module(make_model(), detail="all")  # type: ignore[arg-type]
    with pytest.raises(runstone.InvalidValue, match="every_n_steps"):
        tracked([], every_n_steps=0)


def test_without_a_run_both_say_so() -> None:
    with pytest.raises(runstone.RunNotFound, match="start_run"):
        track_module(make_model())
    with pytest.raises(runstone.RunNotFound, match="start_run"):
        tracked([])


def test_error_of_the_tracker_is_one_warning_and_training_goes_on() -> None:
    class Odd(torch.nn.Linear):  # type: ignore[misc]
        is_broken = False

        def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
            if self.is_broken:
                raise OSError("odd module")
            return super().named_parameters(*args, **kwargs)

    def loop(on_error: Any) -> None:
        model = Odd(4, 1)
        optimizer = sgd(model)
        with runstone.start_run(environment=False, on_error=on_error), track_module(model, every_n_steps=1):
            model.is_broken = True
            for _ in range(2):
                model(torch.randn(16, 4)).sum().backward()
                optimizer.step()

    with pytest.warns(runstone.TrackingWarning, match="odd module") as caught:
        loop("warn")
    assert len(caught) == 1
    with pytest.raises(OSError, match="odd module"):
        loop("raise")


def test_training_after_the_end_of_the_run_is_left_alone(run: runstone.Run) -> None:
    model = make_model()
    with track_module(model, every_n_steps=1, histograms=True):
        train(model, sgd(model))
        run.finish()
        train(model, sgd(model), steps=2)
    assert steps(run, "gradients/norm") == [0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_is_never_waited_for_and_nothing_is_lost(run: runstone.Run) -> None:
    model, x, expected = make_model().cuda(), torch.randn(16, 4, device="cuda"), []
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    model(x).square().mean().backward()
    optimizer.step()  # makes its state
    tracker = track_module(model, every_n_steps=1, weights=True, histograms=True, graph=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in tracked([x] * 20, every_n_steps=1):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            expected.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))
            run.log({"loss": loss})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tracker.close()
    run.finish()
    assert values(run, "gradients/norm") == pytest.approx([float(norm) for norm in expected], rel=1e-4)
    assert steps(run, "weights/norm/0") == list(range(20))
    histograms = run.read().records("gradients/0")
    assert [record.step for record in histograms] == list(range(20))
    last = torch.cat([p.grad.flatten() for p in model[0].parameters()])
    assert histograms[-1].metadata["max"] == pytest.approx(float(last.max()))
    assert "16×4" in run.read().records("model/layers")[0].text


# --- the loader ------------------------------------------------------------------------------------------------------


class Slow:
    """Batches that take a while to come."""

    def __init__(self, batches: list[Any], seconds: float = 0.0) -> None:
        self.batches, self.seconds, self.sampler = batches, seconds, "mine"

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            time.sleep(self.seconds)
            yield batch


def test_waiting_for_data_is_told_from_the_step(run: runstone.Run) -> None:
    batch = torch.zeros(32, 2), torch.zeros(32)
    for got in tracked(Slow([batch] * 4, 0.02), every_n_steps=2):
        assert got is batch
        time.sleep(0.01)
    assert steps(run, "train/step_s") == [1, 3]
    for step_s, data_s, speed in zip(
        *(values(run, f"train/{n}") for n in ("step_s", "data_s", "samples_per_s")), strict=True
    ):
        assert step_s >= 0.03
        assert 0.02 <= data_s <= step_s - 0.01
        assert speed == pytest.approx(32 / step_s)
    (epoch_s,) = values(run, "train/epoch_s")
    assert epoch_s >= 0.12
    assert steps(run, "train/epoch_s") == [3]


def test_passes_go_on_with_steps_and_epochs_wherever_the_call_stands(run: runstone.Run) -> None:
    loader = torch.utils.data.DataLoader(torch.zeros(10, 2), batch_size=4)
    outside = tracked(loader, name="outside", every_n_steps=2)
    for _ in range(2):
        assert [len(batch) for batch in tracked(loader, name="inside", every_n_steps=2)] == [4, 4, 2]
        assert len(list(outside)) == 3
    for name in ("inside", "outside"):
        assert steps(run, f"{name}/step_s") == [1, 2, 3, 5]
        assert values(run, f"{name}/epoch") == [0, 0, 1, 1]
        assert steps(run, f"{name}/epoch_s") == [2, 5]


def test_step_and_epoch_of_a_restart_are_those_given(run: runstone.Run) -> None:
    list(tracked([1, 2, 3], first_step=30, epoch=7))
    list(tracked([1, 2, 3]))
    assert steps(run, "train/step_s") == [32, 35]
    assert values(run, "train/epoch") == [7, 8]
    assert "train/samples_per_s" not in run.read().metrics  # numbers have no first dimension


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(6, 2), 6),
        ([torch.zeros(6), torch.zeros(3)], 6),
        ({"name": ["a"] * 4, "x": torch.zeros(6, 2)}, 6),
        ((["text", "text"], {"y": [torch.zeros(6, 1)]}), 6),
        (torch.tensor(1.0), 0),
        ([], 0),
        (["a", "b"], 0),
        (None, 0),
    ],
)
def test_samples_are_counted_by_the_first_tensor(batch: Any, size: int, run: runstone.Run) -> None:
    list(tracked([batch] * 2))
    info = run.read()
    assert ("train/samples_per_s" in info.metrics) == bool(size)
    if size:
        assert values(run, "train/samples_per_s")[0] == pytest.approx(size / values(run, "train/step_s")[0])


def test_length_attributes_and_exceptions_are_those_of_the_loader(run: runstone.Run) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    loader = Slow([1, 2, 3])
    assert len(tracked(loader)) == 3
    assert tracked(loader).sampler == "mine"
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = tracked(loader).nothing_like_it
    with pytest.raises(TypeError, match="len"):
        len(tracked(broken()))
    with pytest.raises(OSError, match="the disk is gone"):
        list(tracked(broken()))
    assert steps(run, "train/step_s") == [0]  # what was done before is told
    assert "train/epoch_s" not in run.read().metrics
    assert len(copy.copy(tracked(loader))) == 3


def test_break_ends_the_pass_and_its_row(run: runstone.Run) -> None:
    for number in tracked(range(100), every_n_steps=10):
        if number == 24:
            break
    gc.collect()
    assert steps(run, "train/step_s") == [9, 19, 24]
    list(tracked(range(1)))
    assert steps(run, "train/step_s")[-1] == 25


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_this_pass_and_those_to_come(word: Any, status: str) -> None:
    seen = []
    with runstone.start_run(environment=False) as run:
        for epoch in range(3):
            for number in tracked(range(5)):
                seen.append((epoch, number))
                if seen == [(0, 0), (0, 1)]:
                    run.workspace.request_stop(run.id, word)
    assert seen == [(0, 0), (0, 1)]
    assert run.read().status == status


def test_batch_is_not_kept_while_the_next_one_is_made(run: runstone.Run) -> None:
    class Large:
        pass

    alive: list[Any] = []

    def batches() -> Iterator[Any]:
        for _ in range(3):
            assert all(each() is None for each in alive)
            batch = Large()
            alive.append(weakref.ref(batch))
            held = [batch]
            del batch
            yield held.pop()

    for batch in tracked(batches()):
        del batch
    assert len(alive) == 3


def test_iteration_costs_little(run: runstone.Run) -> None:
    batches = [(torch.zeros(8, 2), torch.zeros(8))] * 5_000

    def seconds() -> float:
        start = time.perf_counter()
        for _ in tracked(batches, every_n_steps=10**9):
            pass
        return (time.perf_counter() - start) / len(batches)

    assert min(seconds() for _ in range(5)) < 10e-6  # about 1 µs; the machine that tests may be busy


# --- several processes, and the examples -----------------------------------------------------------------------------


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples()) - 1))
def test_examples_of_the_page_run(number: int, home: Path) -> None:
    exec(compile(examples()[number], f"{DOCS.name}, example {number + 1}", "exec"), {})
    (info,) = runstone.open_workspace(home).runs()
    assert info.status == "finished"
    assert info.metrics


def test_example_for_several_processes_records_once_and_all_ranks_report(home: Path, tmp_path: Path) -> None:
    def start(rank: int) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "RUNSTONE_SYSTEM_METRICS": "0.5",
        }
        script = examples()[-1].replace("[torch.randn(16, 4)] * 10", "[torch.randn(16, 4)] * 100")
        return subprocess.Popen(
            [sys.executable, "-c", script], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [start(rank) for rank in range(2)]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    (info,) = runstone.open_workspace(home).runs()
    assert info.status == "finished"
    assert info.series("train/step_s").step.tolist() == [49, 99]
    assert info.series("gradients/norm").step.tolist() == [49, 99]
    assert any(name.startswith("system/rank.1/") for name in info.metrics)
