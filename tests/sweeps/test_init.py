"""`sweep init`: what is found in a script, what is proposed for it, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from runstone_sweeps.cli.main import cli
from runstone_sweeps.config import load_spec
from runstone_sweeps.preparing.detect import Option, detect
from runstone_sweeps.preparing.initial import choose_metric, propose_parameters

ARGPARSE = """\
import argparse, runstone
parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("-l", "--lr", type=float, default=1e-3)
parser.add_argument("--hidden-size", type=int, default=128)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
parser.add_argument("--dropout", default=0.1, type=float)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--alpha", type=float, default=0.5)
parser.add_argument("--amp", action="store_true")
parser.add_argument("--layers", nargs="+")
with runstone.start_run() as run:
    run.log({"train/loss": 1.0, "val/acc": 0.5}, step=0)
    run.log({f"x{1}": 2})
"""
CLICK = """\
import click
@click.command()
@click.option("--learning-rate", default=0.01)
@click.option("--act", type=click.Choice(["relu", "gelu"]))
@click.option("--depth", type=click.IntRange(1, 9), default=2)
@click.option("--amp/--no-amp", default=False)
def main(**options): ...
"""
TYPER = """\
import typer
app = typer.Typer()
@app.command()
def main(data: str, learning_rate: float = 0.1, momentum: float = typer.Option(0.9, help="x"), amp: bool = False): ...
"""
FIRE = "import fire\ndef main(data, lr=0.1, n_layers=2): ...\nfire.Fire(main)\n"
LIGHTNING = """\
from lightning.pytorch.cli import LightningCLI
class Model:
    def __init__(self, hidden_dim: int = 64, lr: float = 1e-3):
        self.x = 1
    def validation_step(self, batch, index):
        self.log("val/loss", 1.0)
        self.log("note of today", 1.0)
class Data:
    def __init__(self, batch_size: int = 32): ...
LightningCLI(Model, Data)
"""
HYDRA = """\
import hydra
@hydra.main(version_base=None, config_path="conf", config_name="base")
def main(cfg): ...
"""
PARAMS = """\
import runstone
config = runstone.trial_params()
lr = config["lr"]
drop = config.get("dropout", 0.2)
"""


def found(tmp_path: Path, text: str) -> tuple[str, dict[str, Option]]:
    script = tmp_path / "train.py"
    script.write_text(text)
    facts = detect(script)
    return facts.style, {option.name: option for option in facts.options}


def test_options_of_argparse_are_found(tmp_path: Path) -> None:
    style, options = found(tmp_path, ARGPARSE)
    assert style == "arguments"
    assert list(options) == [
        "lr", "hidden-size", "batch_size", "optimizer", "dropout", "epochs", "seed", "alpha", "amp",
    ]  # fmt: skip
    assert options["lr"] == Option("lr", float, 1e-3)
    assert options["optimizer"] == Option("optimizer", str, "adam", ("adam", "sgd"))
    assert options["amp"].is_flag
    assert detect(tmp_path / "train.py").metrics == ("train/loss", "val/acc")


def test_options_of_click_typer_and_fire_are_found(tmp_path: Path) -> None:
    _, options = found(tmp_path, CLICK)
    assert options["learning-rate"] == Option("learning-rate", float, 0.01)
    assert options["act"].choices == ("relu", "gelu")
    assert options["depth"].kind is int
    assert options["amp"].is_flag
    _, options = found(tmp_path, TYPER)
    assert {name: option.default for name, option in options.items()} == {
        "learning-rate": 0.1, "momentum": 0.9, "amp": False,
    }  # fmt: skip
    assert options["amp"].is_flag
    _, options = found(tmp_path, FIRE)
    assert list(options) == ["lr", "n_layers"]


def test_classes_of_lightning_cli_the_config_of_hydra_and_trial_params_are_read(tmp_path: Path) -> None:
    style, options = found(tmp_path, LIGHTNING)
    assert (style, list(options)) == ("lightning", ["model.hidden_dim", "model.lr", "data.batch_size"])
    assert detect(tmp_path / "train.py").metrics == ("val/loss",)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "base.yaml").write_text(
        "defaults: [_self_]\nmodel: {lr: 1e-3, act: relu}\nepochs: 3\nout: ${hydra.run}\n"
    )
    style, options = found(tmp_path, HYDRA)
    assert (style, list(options)) == ("hydra", ["model.lr", "model.act", "epochs"])
    style, options = found(tmp_path, PARAMS)
    assert (style, list(options)) == ("params", ["lr", "dropout"])


@pytest.mark.parametrize("text", ["def (", "\x00", "", "x = " + "(" * 500])
def test_a_script_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text)[1] == {}


@pytest.mark.parametrize(
    ("option", "body"),
    [
        (Option("lr", float, 1e-3), "{min: 1e-05, max: 0.01, log: true}"),
        (Option("model.learning-rate"), "{min: 1e-06, max: 1.0, log: true}"),
        (Option("weight_decay", float, 0.0), "{min: 1e-07, max: 1.0, log: true}"),
        (Option("attn-dropout", float, 0.1), "{min: 0.0, max: 0.5}"),
        (Option("batch_size", int, 64), "{values: [16, 32, 64, 128, 256]}"),
        (Option("hidden_size", int, 100), "{values: [32, 64, 128, 256, 512]}"),
        (Option("num_layers", int, 2), "{min: 1, max: 4}"),
        (Option("momentum", float, 0.9), "{min: 0.5, max: 0.99}"),
        (Option("act", str, "relu", ("relu", "gelu")), "{values: [relu, gelu]}"),
    ],
)
def test_ranges_follow_names_and_defaults(option: Option, body: str) -> None:
    (proposal,) = propose_parameters([option])
    assert proposal.is_sure
    assert proposal.body == body


def test_what_is_no_matter_of_search_is_left_out_and_what_is_unclear_is_a_comment() -> None:
    ignored = [Option("seed", int, 1), Option("data_dir", str, "x"), Option("num_workers", int, 4), Option("text", str)]
    assert propose_parameters(ignored) == []
    unclear = [Option("alpha", float, 0.5), Option("k", int, 5), Option("epochs", int, 3), Option("amp", bool, False)]
    assert [(p.body, p.is_sure) for p in propose_parameters(unclear)] == [
        ("{min: 0.05, max: 5.0, log: true}", False),
        ("{min: 2, max: 10}", False),
        ("{value: 3}", False),
        ("{values: [true, false]}", False),
    ]


def test_the_metric_of_a_validation_is_preferred() -> None:
    assert choose_metric(["train/loss", "epoch", "val/acc", "val/x"]) == "val/acc"
    assert choose_metric(["train/loss", "test/loss"]) == "test/loss"
    assert choose_metric([]) is None


def init(tmp_path: Path, *words: str, answers: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "sweep.yaml"), *words], input=answers)
    return result.exit_code, result.output


@pytest.mark.parametrize("script", [ARGPARSE, CLICK, TYPER, FIRE, LIGHTNING, PARAMS, "print(1)\n"])
def test_what_is_written_passes_the_check(tmp_path: Path, script: str) -> None:
    (tmp_path / "train.py").write_text(script)
    code, out = init(tmp_path, "--yes", "--metric", "val/acc", "--trials", "9")
    assert code == 0, out
    spec = load_spec(tmp_path / "sweep.yaml")
    assert (spec.script, spec.trials, spec.metric.name, spec.metric.goal) == ("train.py", 9, "val/acc", "maximize")
    lines = (tmp_path / "sweep.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=.sweep.schema.json"
    assert json.loads((tmp_path / ".sweep.schema.json").read_text())["$defs"]


def test_only_what_is_clear_is_searched(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ARGPARSE)
    assert init(tmp_path, "--yes", "--no-schema")[0] == 0
    spec = load_spec(tmp_path / "sweep.yaml")
    assert [p.name for p in spec.space] == ["lr", "hidden-size", "batch_size", "optimizer", "dropout"]
    assert spec.metric.name == "val/acc"
    text = (tmp_path / "sweep.yaml").read_text()
    assert "  # alpha: {min: 0.05, max: 5.0, log: true}" in text
    assert not text.startswith("# yaml-language-server")
    assert not (tmp_path / ".sweep.schema.json").exists()


def test_a_config_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ARGPARSE)
    (tmp_path / "sweep.yaml").write_text("mine")
    code, out = init(tmp_path, "--yes")
    assert (code, (tmp_path / "sweep.yaml").read_text()) == (1, "mine")
    assert "is there already; --force writes over it" in out
    assert init(tmp_path, "--yes", "--force")[0] == 0
    assert load_spec(tmp_path / "sweep.yaml").trials == 40


def test_it_asks_and_takes_the_answers(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ARGPARSE)
    # script, metric, goal is guessed, then one question for each clear option, trials, at once
    code, out = init(tmp_path, answers="\n\ny\nn\nn\ny\nn\n12\n3\n")
    assert code == 0, out
    spec = load_spec(tmp_path / "sweep.yaml")
    assert [p.name for p in spec.space] == ["lr", "optimizer"]
    assert (spec.trials, spec.parallel) == (12, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--yes", "--script", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["--yes", "--script", "empty.py"], "metric, as the script logs it: nothing was found; give --metric"),
        (["--yes", "--script", "empty.py", "--metric", "x1"], "give --goal"),
    ],
)
def test_what_cannot_be_found_is_asked_for_in_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty.py").write_text("")
    code, out = init(tmp_path, *words)
    assert code == 1
    assert message in out
    assert not (tmp_path / "sweep.yaml").exists()
