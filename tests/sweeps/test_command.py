"""The command line of a trial."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runstone_sweeps.spec.command import build_command

POINT: dict[str, Any] = {"lr": 0.001, "opt.name": "adam", "flag": True, "off": False, "sizes": [1, 2]}
ARGS = ["--lr=0.001", "--opt.name=adam", "--flag=True", "--off=False", "--sizes=[1, 2]"]


def build(command: Sequence[str] | None = None, script: str | None = None, function: str | None = None) -> list[str]:
    return build_command(
        POINT,
        script=script,
        command=command,
        function=function,
        metric="loss",
        environment={"HOME": "/home/me"},
        json_file=Path("/x/params.json"),
    )


def test_a_script_gets_every_parameter_as_an_argument() -> None:
    assert build(script="train.py") == [sys.executable, "train.py", *ARGS]
    assert build(script="run.sh") == ["./run.sh", *ARGS]


def test_a_command_without_parameters_gets_them_appended() -> None:
    assert build(["bash", "run.sh"]) == ["bash", "run.sh", *ARGS]
    assert build(["${interpreter}", "${program}"], script="a.py") == [sys.executable, "a.py", *ARGS]


def test_a_command_that_mentions_parameters_gets_only_those() -> None:
    assert build(["run", "--rate", "${lr}", "out/${opt.name}.txt"]) == ["run", "--rate", "0.001", "out/adam.txt"]


def test_the_macros_of_weights_and_biases_work() -> None:
    words = build(["${env}", "${interpreter}", "${program}", "${args}"], script="a.py")
    assert words == ["/usr/bin/env", sys.executable, "a.py", *ARGS]
    assert build(["x", "${args_no_hyphens}"]) == ["x", *(arg[2:] for arg in ARGS)]
    assert build(["x", "${args_no_boolean_flags}"]) == ["x", *ARGS[:2], "--flag", ARGS[4]]
    assert build(["x", "${args_json_file}"]) == ["x", "/x/params.json"]
    assert build(["x", "${envvar:HOME}/y", "${args_json}"])[1] == "/home/me/y"


def test_a_function_is_called_in_a_process_of_its_own() -> None:
    assert build(function="pkg.mod:fn") == [sys.executable, "-m", "runstone_sweeps.trial", "pkg.mod:fn", "loss"]
