"""`TrackingCallback` with the real `Trainer` of Transformers, and with one of TRL where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

import runstone  # noqa: E402
from runstone_integrations.transformers import TrackingCallback  # noqa: E402

DATA = [{"input_ids": [index % 7, 1, 2, 3], "labels": [index % 7, 1, 2, 3]} for index in range(16)]


def make_model() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def make_trainer(folder: Path, *callbacks: Any, **options: Any) -> Any:
    """Return a trainer of 4 optimizer steps an epoch."""
    common: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }
    extra = {name: options.pop(name) for name in ("eval_dataset", "model_init", "model") if name in options}
    if "model_init" not in extra:
        extra.setdefault("model", make_model())
    args = transformers.TrainingArguments(output_dir=str(folder), **{**common, **options})
    return transformers.Trainer(args=args, train_dataset=DATA, callbacks=list(callbacks), **extra)


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask(transformers.TrainerCallback):  # type: ignore[misc]
    """Asks the run to stop at a step, as a sweep does."""

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        self.tracker, self.at, self.word = tracker, at, word

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            runstone.open_workspace().request_stop(self.tracker.run.id, self.word)  # type: ignore[union-attr,arg-type]


def test_what_the_trainer_logs_stands_at_its_optimizer_steps(tmp_path: Path) -> None:
    tracker = TrackingCallback(project="toy", params={"mine": 1})
    options = {"gradient_accumulation_steps": 2, "num_train_epochs": 4, "eval_strategy": "epoch"}
    trainer = make_trainer(tmp_path, tracker, eval_dataset={"a": DATA[:4], "b": DATA[4:8]}, **options)
    trainer.train()
    info = read(tracker)
    assert (info.status, info.project, info.params["mine"]) == ("finished", "toy", 1)
    assert steps(info, "loss") == steps(info, "learning_rate") == [2, 4, 6, 8]
    assert steps(info, "eval_a_loss") == steps(info, "eval_b_loss") == [2, 4, 6, 8]
    for row in trainer.state.log_history:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                series = info.series(name)
                assert value in series.value[series.step == row["step"]].tolist(), name
    assert info.series("train_loss").step.tolist() == [8]


def test_arguments_model_and_end_are_params(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    make_trainer(tmp_path, tracker, learning_rate=0.01).train()
    told = read(tracker).params["transformers"]
    assert told["args"]["learning_rate"] == 0.01
    assert told["args"]["weight_decay"] == 0.0  # a default
    assert (told["model"]["class"].rpartition(".")[2], told["model"]["config"]["n_embd"]) == ("GPT2LMHeadModel", 8)
    assert told["model"]["parameters"] == sum(parameter.numel() for parameter in make_model().parameters())
    assert (told["max_steps"], told["last_step"], told["ended_by"]) == (8, 8, "steps")


def test_evaluate_and_predict_belong_to_the_run_of_the_training(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    trainer = make_trainer(tmp_path, tracker, eval_dataset=DATA[:4])
    trainer.train()
    trainer.evaluate()
    trainer.predict(DATA[4:8], metric_key_prefix="test")
    info = read(tracker)
    assert len(runstone.open_workspace().runs()) == 1
    assert (steps(info, "eval_loss"), steps(info, "test_loss")) == ([8], [8])
    assert info.status == "finished"


def test_evaluate_alone_is_a_run(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    loss = make_trainer(tmp_path, tracker, eval_dataset=DATA[:4]).evaluate()["eval_loss"]
    assert read(tracker).series("eval_loss").value.tolist() == [loss]
    assert read(tracker).status == "finished"


def test_evaluation_in_a_run_named_by_its_id_hides_nothing_of_it(tmp_path: Path) -> None:
    make_trainer(tmp_path, TrackingCallback(run_id="mine")).train()
    make_trainer(tmp_path, TrackingCallback(run_id="mine"), eval_dataset=DATA[:4]).evaluate()
    info = runstone.open_workspace().run("mine")
    assert (steps(info, "loss"), steps(info, "eval_loss")) == ([2, 4, 6, 8], [0])
    assert len(info.attempts) == 2


def test_second_training_is_a_run_of_its_own_and_in_a_run_of_the_user_it_follows(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    trainer = make_trainer(tmp_path, tracker)
    trainer.train()
    first = read(tracker).id
    trainer.train()
    assert read(tracker).id != first
    assert steps(read(tracker), "loss") == [2, 4, 6, 8]
    with runstone.start_run() as run:
        for _ in range(2):
            make_trainer(tmp_path, TrackingCallback()).train()
        assert not run.is_finished
    assert steps(runstone.open_workspace().run(run.id), "loss") == [2, 4, 6, 8, 11, 13, 15, 17]


def test_training_from_a_checkpoint_goes_on_in_the_run_that_wrote_it(tmp_path: Path) -> None:
    first = TrackingCallback(name="first")
    make_trainer(tmp_path, first, save_strategy="steps", save_steps=3, save_only_model=False).train()
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["TrackingCallback"]["attributes"] == {"_written_by": read(first).id}
    for restore in (False, True):
        second = TrackingCallback()
        trainer = make_trainer(tmp_path / "b", second, restore_callback_states_from_checkpoint=restore)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        (info,) = runstone.open_workspace().runs()
        assert (info.id, info.name, info.status) == (read(first).id, "first", "finished")
        assert steps(info, "loss") == [2, 4, 6, 8], "one value a step"
    assert len(info.attempts) == 3


def test_checkpoint_written_without_the_callback_can_be_continued_and_saved_again(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 4}
    make_trainer(tmp_path, **options).train()
    tracker = TrackingCallback()
    make_trainer(tmp_path, tracker, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert steps(read(tracker), "loss") == [6, 8]


def test_checkpoints_are_told_by_path_and_kept_where_asked_for(tmp_path: Path) -> None:
    options = {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "eval_dataset": DATA[:4],
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "save_total_limit": 1,
        "save_only_model": True,
        "learning_rate": 0.05,
    }
    told, kept, every = (
        TrackingCallback(),
        TrackingCallback(checkpoints="best+last"),
        TrackingCallback(checkpoints="all"),
    )
    make_trainer(tmp_path, told, **options).train()
    assert read(told).params["transformers"]["checkpoints"]["last"] == str(tmp_path / "checkpoint-8")
    assert read(told).params["transformers"]["checkpoints"]["best_metric"] == read(told).series("eval_loss").value.min()
    assert read(told).artifacts == ()
    make_trainer(tmp_path / "b", kept, **options).train()
    artifacts = {artifact.name: artifact for artifact in read(kept).artifacts}
    assert set(artifacts) == {"checkpoints/best", "checkpoints/last"}
    assert artifacts["checkpoints/last"].metadata["step"] == 8
    assert "model.safetensors" in [file.path for file in artifacts["checkpoints/last"].files]
    make_trainer(tmp_path / "c", every, **options).train()
    assert {"checkpoints/checkpoint-4", "checkpoints/checkpoint-8"} <= {each.name for each in read(every).artifacts}
    with pytest.raises(runstone.InvalidValue, match="some"):
        TrackingCallback(checkpoints="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_training_after_the_step(tmp_path: Path, word: str, status: str) -> None:
    tracker = TrackingCallback()
    trainer = make_trainer(tmp_path, Ask(tracker, 3, word), tracker)
    trainer.train()
    assert trainer.state.global_step == 4
    assert (read(tracker).status, read(tracker).params["transformers"]["ended_by"]) == (status, "request")


def test_early_stopping_is_recorded_with_its_step(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    stopper = transformers.EarlyStoppingCallback(1, early_stopping_threshold=1e9)
    options = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_dataset": DATA[:4],
        "metric_for_best_model": "eval_loss",
    }
    make_trainer(tmp_path, tracker, stopper, save_strategy="best", save_only_model=True, **options).train()
    told = read(tracker).params["transformers"]
    assert (read(tracker).status, told["ended_by"], told["last_step"]) == ("finished", "callback", 4)


def test_each_trial_of_a_hyperparameter_search_is_a_run_and_pruned_ones_say_so(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")

    class PruneTheSecond(optuna.pruners.BasePruner):  # type: ignore[misc]
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(trial.number == 1)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tracker = TrackingCallback()
    trainer = make_trainer(
        tmp_path, tracker, model_init=lambda trial: make_model(), eval_dataset=DATA[:4], eval_strategy="epoch"
    )
    with runstone.start_run(project="search") as run:
        trainer.hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1)},
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=3,
            backend="optuna",
            pruner=PruneTheSecond(),
        )
    trials = [info for info in runstone.open_workspace().runs(order_by="started_at") if info.parent == run.id]
    assert [info.status for info in trials] == ["finished", "pruned", "finished"]
    for info in trials:
        told = info.params["transformers"]
        assert told["trial"]["params"]["learning_rate"] == told["args"]["learning_rate"]
    assert [steps(info, "eval_loss") for info in trials] == [[4, 8], [4], [4, 8]]
    assert runstone.open_workspace().run(run.id).metrics == {}


def test_what_report_to_names_still_gets_its_rows_and_no_run_is_doubled(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    tracker = TrackingCallback()
    make_trainer(tmp_path, tracker, report_to=["tensorboard"]).train()
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    assert len(runstone.open_workspace().runs()) == 1


def test_weights_and_random_numbers_are_the_same_with_and_without(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [TrackingCallback(checkpoints="best+last")]):
        trainer = make_trainer(tmp_path, *callbacks, save_strategy="epoch", save_only_model=True)
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        results.append((trainer.model.state_dict(), torch.get_rng_state(), losses))
    (plain, plain_rng, plain_losses), (tracked, tracked_rng, losses) = results
    assert all(torch.equal(tracked[name], plain[name]) for name in plain)
    assert torch.equal(plain_rng, tracked_rng)
    assert losses == plain_losses


def test_exception_in_a_with_block_fails_the_run(tmp_path: Path) -> None:
    class Explode(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise RuntimeError("the user's own error")

    tracker = TrackingCallback()
    with pytest.raises(RuntimeError, match="the user's own error"), tracker:
        make_trainer(tmp_path, tracker, Explode()).train()
    info = read(tracker)
    assert info.failure is not None
    assert (info.status, info.failure.message) == ("failed", "the user's own error")


def test_two_processes_record_one_run_and_stop_at_the_same_step(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        import importlib.util, os, sys, pathlib
        import torch.multiprocessing
        spec = importlib.util.spec_from_file_location("tests_of_transformers", {__file__!r})
        tests = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests)

        def work(rank):
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                MASTER_PORT={str(_free_port())!r}, ACCELERATE_USE_CPU="true",
            )
            torch.set_num_threads(1)
            tracker = tests.TrackingCallback()
            callbacks = [tests.Ask(tracker, 3, "stop")] if rank == 0 else []
            options = dict(ddp_backend="gloo", per_device_train_batch_size=2, logging_steps=2)
            trainer = tests.make_trainer(pathlib.Path({str(tmp_path)!r}), *callbacks, tracker, **options)
            trainer.train()
            pathlib.Path({str(tmp_path)!r}, f"step-{{rank}}").write_text(str(trainer.state.global_step))

        if __name__ == "__main__":
            torch.multiprocessing.start_processes(work, nprocs=2, start_method="fork")
        """)
    )
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / f"step-{rank}").read_text() for rank in (0, 1)] == ["4", "4"]
    (info,) = runstone.open_workspace().runs()
    assert (info.status, steps(info, "loss")) == ("stopped", [2, 4])


def _free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_trainers_of_trl_record_too(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "one", "two", "three", "four"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    processing = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )
    tracker = TrackingCallback()
    args = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=2, logging_steps=1, report_to=[], use_cpu=True, bf16=False,
        save_strategy="no", disable_tqdm=True, per_device_train_batch_size=2, max_length=8,
        dataloader_pin_memory=False, activation_checkpointing=False,
    )  # fmt: skip
    data = datasets.Dataset.from_dict({"text": ["one two three", "two three four", "four one", "three two"]})
    trainer = trl.SFTTrainer(
        make_model(), args=args, train_dataset=data, processing_class=processing, callbacks=[tracker]
    )
    trainer.train()
    info = read(tracker)
    assert (info.status, steps(info, "loss")) == ("finished", [1, 2])
    assert steps(info, "mean_token_accuracy") == [1, 2]
    assert info.params["transformers"]["args"]["max_length"] == 8
