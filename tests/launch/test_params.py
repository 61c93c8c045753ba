"""What a program's command line becomes: params, for each library that takes it apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runstone.launch.params import nested, params_of_words, typed, without_secrets

Script = Callable[..., str]


def test_the_effective_arguments_of_argparse_are_params_defaults_and_subcommands_included(
    script: Script, launched: Callable[..., object]
) -> None:
    name = script(
        """
        import argparse, enum, pathlib
        class Kind(enum.Enum):
            SMALL = "small"
        parser = argparse.ArgumentParser()
        parser.add_argument("--seed", type=int, default=7)
        parser.add_argument("--kind", type=Kind, default=Kind.SMALL)
        parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("data"))
        commands = parser.add_subparsers(dest="command")
        train = commands.add_parser("train")
        train.add_argument("--learning-rate", type=float, default=0.1)
        train.add_argument("--model.width", type=int, default=8)
        train.add_argument("--layers", type=int, nargs="*", default=[1, 2])
        train.add_argument("--limit", type=float, default=float("inf"))
        train.set_defaults(call=lambda: None)
        assert parser.parse_args().command == "train"
        """
    )
    done = launched(name, "train", "--learning-rate", "3e-4")
    assert (done.code, done.err) == (0, b"")
    assert done.run.params == {
        "seed": 7,
        "kind": "small",
        "data": "data",
        "command": "train",
        "learning_rate": 3e-4,
        "model": {"width": 8},
        "layers": [1, 2],
        "limit": float("inf"),
    }


def test_words_that_a_script_parses_for_other_ends_are_not_its_arguments(
    script: Script, launched: Callable[..., object]
) -> None:
    name = script(
        """
        import argparse
        inner = argparse.ArgumentParser()
        inner.add_argument("--inner")
        inner.parse_args(["--inner", "1"])
        outer = argparse.ArgumentParser()
        outer.add_argument("--outer")
        outer.parse_args()
        """
    )
    assert launched(name, "--outer", "2").run.params == {"outer": "2"}


def test_what_the_script_logs_itself_wins_before_and_after(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import argparse, runstone
        run = runstone.start_run(params={"lr": 1, "model": {"width": 2}})
        parser = argparse.ArgumentParser()
        for name in ("lr", "model.width", "model.depth", "epochs"):
            parser.add_argument(f"--{name}", type=int, default=9)
        parser.parse_args()
        import time; time.sleep(0.5)
        run.log_params({"epochs": 3})
        """
    )
    run = launched(name, "--lr", "5").run
    assert run.params == {"lr": 1, "model": {"width": 2, "depth": 9}, "epochs": 3}


def test_arguments_of_click_are_params_with_the_command_that_was_chosen(
    script: Script, launched: Callable[..., object]
) -> None:
    name = script(
        """
        import click
        from click.testing import CliRunner
        @click.group()
        @click.option("--verbose/--quiet", default=False)
        def cli(verbose): pass
        @cli.command()
        @click.argument("data", type=click.Path())
        @click.option("--lr", type=float, default=0.1)
        @click.option("--size", type=click.Choice(["s", "m"]), default="s")
        def fit(data, lr, size): print(lr)
        if CliRunner().invoke(cli, ["fit", "other", "--lr", "8"]).exit_code == 0:
            cli()
        """
    )
    done = launched(name, "fit", "here", "--lr", "0.5")
    assert done.out == b"0.5\n"
    assert done.run.params == {"verbose": False, "command": "fit", "data": "here", "lr": 0.5, "size": "s"}


def test_arguments_of_typer_are_params(script: Script, launched: Callable[..., object]) -> None:
    pytest.importorskip("typer")
    name = script(
        """
        import typer
        def main(data: str, lr: float = 0.1, layers: list[int] = [1, 2], shuffle: bool = True): print(lr)
        typer.run(main)
        """
    )
    done = launched(name, "here", "--lr", "0.5", "--no-shuffle")
    assert done.out == b"0.5\n"
    assert done.run.params == {"data": "here", "lr": 0.5, "layers": [1, 2], "shuffle": False}


_HYDRA = """
    import hydra
    @hydra.main(version_base=None, config_path="conf", config_name="config")
    def main(config): print(config.lr, config.model.name)
    main()
    """


def _hydra_files(script: Script) -> str:
    script("defaults: [{model: small}, _self_]\nlr: 0.1\nwide: ${model.width}\nmust: ???\n", "conf/config.yaml")
    script("name: small\nwidth: 8\n", "conf/model/small.yaml")
    script("name: big\nwidth: 64\n", "conf/model/big.yaml")
    return script(_HYDRA)


def test_the_composed_configuration_of_hydra_is_params(script: Script, launched: Callable[..., object]) -> None:
    pytest.importorskip("hydra")
    done = launched(_hydra_files(script), "lr=0.5", "+extra.seed=3")
    assert (done.code, done.out) == (0, b"0.5 small\n"), done.err
    params = {**done.run.params}
    assert params.pop("must") == "???"
    assert params == {"lr": 0.5, "wide": 8, "model": {"name": "small", "width": 8}, "extra": {"seed": 3}}


def test_a_multirun_of_hydra_tells_what_its_jobs_share_and_what_each_was_given(
    script: Script, launched: Callable[..., object]
) -> None:
    pytest.importorskip("hydra")
    done = launched(_hydra_files(script), "--multirun", "lr=0.5,0.25", "model=big")
    assert b"0.5 big" in done.out
    assert b"0.25 big" in done.out
    params = done.run.params
    assert params["jobs"] == {"0": {"lr": 0.5, "model": "big"}, "1": {"lr": 0.25, "model": "big"}}
    assert params["wide"] == 64
    assert "lr" not in params
    assert "model" not in params


def test_a_configuration_of_omegaconf_from_the_command_line_is_params_with_what_it_is_merged_into(
    script: Script, launched: Callable[..., object]
) -> None:
    pytest.importorskip("omegaconf")
    name = script(
        """
        from omegaconf import OmegaConf
        base = OmegaConf.create({"lr": 0.1, "model": {"width": 8}})
        config = OmegaConf.merge(base, OmegaConf.from_cli())
        OmegaConf.merge({"other": 1}, {"more": 2})
        """
    )
    assert launched(name, "model.width=16").run.params == {"lr": 0.1, "model": {"width": 16}}


def test_the_configuration_of_jsonargparse_is_params(script: Script, launched: Callable[..., object]) -> None:
    pytest.importorskip("jsonargparse")
    name = script(
        """
        from dataclasses import dataclass
        from jsonargparse import auto_cli
        @dataclass
        class Model:
            width: int = 8
            name: str = "mlp"
        def main(model: Model, lr: float = 0.1): print(model.width)
        auto_cli(main)
        """
    )
    done = launched(name, "--model.width", "16")
    assert done.out == b"16\n", done.err
    params = {name: value for name, value in done.run.params.items() if name != "config"}
    assert params == {"model": {"width": 16, "name": "mlp"}, "lr": 0.1}


def test_the_dataclass_of_draccus_is_params(script: Script, launched: Callable[..., object]) -> None:
    pytest.importorskip("draccus")
    name = script(
        """
        from dataclasses import dataclass, field
        import draccus
        @dataclass
        class Model:
            width: int = 8
        @dataclass
        class Config:
            model: Model = field(default_factory=Model)
            lr: float = 0.1
        @draccus.wrap()
        def main(config: Config): print(config.model.width)
        main()
        """
    )
    done = launched(name, "--model.width", "16")
    assert done.out == b"16\n", done.err
    assert done.run.params == {"model": {"width": 16}, "lr": 0.1}


def test_flags_of_absl_are_params_without_those_of_absl(script: Script, launched: Callable[..., object]) -> None:
    pytest.importorskip("absl")
    name = script(
        """
        from absl import app, flags
        LR = flags.DEFINE_float("lr", 0.1, "rate")
        flags.DEFINE_list("sizes", ["1", "2"], "sizes")
        app.run(lambda argv: print(LR.value))
        """
    )
    done = launched(name, "--lr=0.5")
    assert done.out == b"0.5\n", done.err
    assert done.run.params == {"lr": 0.5, "sizes": ["1", "2"]}


def test_arguments_of_fire_are_params(script: Script, launched: Callable[..., object]) -> None:
    pytest.importorskip("fire")
    name = script(
        """
        import fire
        def train(data, lr=0.1, *, epochs=3): print(lr)
        fire.Fire(train)
        """
    )
    done = launched(name, "here", "--lr=0.5")
    assert done.out == b"0.5\n", done.err
    assert done.run.params == {"data": "here", "lr": 0.5, "epochs": 3}


def test_a_script_that_takes_its_words_apart_by_hand_has_them_as_params(
    script: Script, launched: Callable[..., object]
) -> None:
    name = script("import sys; print(sys.argv[1:])")
    done = launched(name, "--lr=0.5", "seed=3", "--fast", "data.csv")
    assert done.out == b"['--lr=0.5', 'seed=3', '--fast', 'data.csv']\n"
    assert done.run.params == {"lr": 0.5, "seed": 3, "fast": "data.csv"}


def test_words_of_another_program_are_params(launched: Callable[..., object]) -> None:
    done = launched("bash", "-c", 'echo "$@"', "name", "--lr", "1e-3", "--model.width=8", "--verbose")
    assert done.out == b"--lr 1e-3 --model.width=8 --verbose\n"
    assert done.run.params == {"lr": 1e-3, "model": {"width": 8}, "verbose": True}


def test_secrets_among_arguments_are_left_out(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--api-key")
        parser.add_argument("--url")
        parser.add_argument("--num-tokens", type=int)
        parser.parse_args()
        """
    )
    done = launched(name, "--api-key", "hunter22", "--url", "https://me:hunter22@example.org/x", "--num-tokens", "5")
    assert done.run.params["num_tokens"] == 5
    assert done.run.params["api_key"] == "<redacted>"
    everything = b"".join(path.read_bytes() for path in done.run.path.iterdir())
    assert b"hunter22" not in everything


def test_params_from_a_file_stand_unless_arguments_say_otherwise(
    script: Script, launched: Callable[..., object], tmp_path: Path
) -> None:
    (tmp_path / "base.toml").write_text("lr = 1\n[model]\nwidth = 8\n")
    name = script("import argparse; p = argparse.ArgumentParser(); p.add_argument('--lr', type=int); p.parse_args()")
    assert launched("--params-from", "base.toml", name, "--lr", "5").run.params == {"lr": 5, "model": {"width": 8}}


def test_no_library_is_loaded_that_the_script_does_not_load(script: Script, launched: Callable[..., object]) -> None:
    name = script("import sys; print(*sorted(sys.modules))")
    observed = set(launched(name).out.split())
    bare = subprocess_modules(name)
    assert observed - bare <= {b"__future__"}


def subprocess_modules(name: str) -> set[bytes]:
    import subprocess

    return set(subprocess.run([sys.executable, name], capture_output=True, check=True).stdout.split())


def test_a_module_of_the_scripts_folder_hides_one_of_the_standard_library_as_ever(
    script: Script, launched: Callable[..., object]
) -> None:
    for shadow in ("json", "argparse", "ast"):
        script(f"name = 'mine: {shadow}'", f"{shadow}.py")
    name = script("import json, argparse; print(json.name, argparse.name)")
    assert launched(name, "x=1").out == b"mine: json mine: argparse\n"


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["--a", "1", "--b=x", "c=2.5", "--d"], {"a": 1, "b": "x", "c": 2.5, "d": True}),
        (["--a", "-1", "-bb", "-.5", "-c", "--d"], {"a": -1, "bb": -0.5, "d": True}),
        (["a.b=1", "a.c.d=2", "a=3"], {"a": 3, "a.b": 1, "a.c": {"d": 2}}),
        (["a=3", "a.b=1"], {"a": 3, "a.b": 1}),
        (["+new=1", "++x.y=2", "file.csv", "https://x/?q=1"], {"new": 1, "x": {"y": 2}}),
        (['--list=[1, "a"]', "--none=None", "--id=007"], {"list": [1, "a"], "none": None, "id": "007"}),
        ([], {}),
    ],
)  # fmt: skip
def test_words_by_name_are_typed_params(words: list[str], params: dict[str, object]) -> None:
    assert params_of_words(words) == params


def test_a_word_is_the_value_that_it_spells() -> None:
    spelled = {
        "1": 1, "-1.5": -1.5, "1e-3": 1e-3, "5.": 5.0, "true": True, "None": None, "1e999": float("inf"),
        "-inf": -float("inf"), "{\"a\": 1}": {"a": 1},
    }  # fmt: skip
    for text, value in spelled.items():
        assert typed(text) == value
        assert type(typed(text)) is type(value)
    for text in ("", ".", "abc", "007", "1_000", "e5", "Infinity", "NaN", '"x"', "2026-11-23", "[1"):
        assert typed(text) == text


def test_dotted_names_nest_unless_that_would_lose_one() -> None:
    assert nested({"a.b": 1, "a.c": {"d": 2}, "e": 3, "e.f": 4, ".x": 5}) == {
        "a": {"b": 1, "c": {"d": 2}}, "e": 3, "e.f": 4, ".x": 5,
    }  # fmt: skip


def test_secrets_in_lists_and_below_are_left_out() -> None:
    assert without_secrets({"a": {"password": "x1y2", "n": 1}, "tokens": 5, "urls": ["http://a:b@c/d"]}) == {
        "a": {"password": "<redacted>", "n": 1},
        "tokens": 5,
        "urls": ["http://<redacted>@c/d"],
    }
