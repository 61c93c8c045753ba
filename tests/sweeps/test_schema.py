"""The published JSON Schema: current, no stricter than the check, and of use to an editor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from runstone import InvalidConfig
from runstone_sweeps.config import parse_spec, yamlfile
from runstone_sweeps.config.schema import build_schema
from runstone_sweeps.config.shape import CONFIG_KEYS
from runstone_sweeps.spec.algorithms import PRUNERS, SAMPLERS

from .test_cli import call

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
BASE = "metric: {name: a, goal: minimize}\n"
SPACE = "parameters: {x: {min: 0, max: 1}}\n"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = build_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read(text: str) -> Any:
    return yamlfile.parse(text, "x.yaml")[0]


def test_the_published_copy_is_current() -> None:
    assert json.loads((ROOT / "docs" / "sweep.schema.json").read_text()) == build_schema(), (
        "write it again: sweep schema -o docs/sweep.schema.json"
    )


def test_the_command_prints_it() -> None:
    assert json.loads(call("schema")) == build_schema()


def test_every_key_has_a_description_for_the_editor() -> None:
    properties = build_schema()["$defs"]["config"]["properties"]
    assert set(properties) == {*CONFIG_KEYS, "$schema"}
    assert [key for key in CONFIG_KEYS if not properties[key].get("description")] == []


GOOD = [
    BASE + SPACE + "trials: 3\nscript: a.py\n",
    BASE + SPACE + "$schema: x\ntimeout: 1h30m\ngrace: 0\ncommand: python a.py\nenv: {A: 1, B: null, C: true}\n",
    "metrics: [{name: a, goal: maximize, target: 1, value: best}, {name: b, goal: minimize}]\nprune_on: a\n" + SPACE,
    BASE + "parameters: {a: {values: [1, null, [2], {b: 3}], probabilities: [1, 1, 1, 2]}, b: {value: null}}\n",
    BASE + "parameters: {a: {values: [1, 2]}, g: {when: {a: 1}, parameters: {b: {value: 1, when: {a: [1]}}}}}\n",
    BASE + "parameters: {a: {distribution: normal, mu: 1, sigma: 2, min: 0, step: 1, type: int}}\n",
    BASE + "parameters: {a: {min: 1e-5, max: 1, log: true}, b: {min: 1, max: 9, step: 2, type: int}}\n",
    BASE + SPACE + "sampler: {name: tpe, n_startup_trials: 5}\n"
    "pruner: {name: patient, patience: 3, wrapped_pruner: median}",
    BASE + SPACE + "sampler: {name: partial_fixed, fixed_params: {x: 1}, base_sampler: random}\npruner: false\n",
    BASE + SPACE + "retries: 2\nreplicates: 3\nterminator: true\n"
    "executor: ray\nextends: a\npreload: torch\nmemory: 8GB\n",
    BASE + SPACE + "retries: {oom: 1, backoff: 5s}\nreplicates: {count: 2, aggregate: mean}\n"
    "extends: [a, b]\nmemory: 1000\n"
    "terminator: {patience: 3}\nexecutor: {name: slurm, partition: x}\ngpus: 0.5\ndevices: [0]\ncpus: 1\nstart: warm\n",
    BASE + SPACE + "budget: {energy: 3kWh, cost: 1, prices: {hour: 1}, gpu_hours: 2}\nduplicates: forbid\naudit: 0.1\n"
    "constraints: [{metric: m, max: 1}]\npoints: [{x: 1}]\nstorage: sqlite:///a\nmin_per_branch: 0\n"
    "seed: 1\nfunction: a:b\n",
    "program: a.py\nmethod: grid\nmetric: {name: a}\nparameters: {a: {distribution: q_beta, q: 1}}\nrun_cap: 3\n",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_what_the_check_accepts_is_valid(validator: Any, tmp_path: Path, text: str) -> None:
    parse_spec(read(text), folder=tmp_path, has_budget=True, is_for_reading=True)
    validator.validate(read(text))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        BASE,
        SPACE,
        BASE + SPACE + "metrics: [{name: b, goal: minimize}]\n",
        BASE + SPACE + "trails: 3\n",
        BASE + SPACE + "trials: 0\n",
        BASE + SPACE + "trials: many\n",
        BASE + SPACE + "timeout: soon\n",
        BASE + SPACE + "sampler: tpee\n",
        BASE + SPACE + "sampler: {name: tpe, n_startup: 3}\n",
        BASE + SPACE + "pruner: {name: percentile}\n",
        BASE + SPACE + "start: hot\n",
        BASE + SPACE + "retries: {oon: 1}\n",
        BASE + SPACE + "executor: moon\n",
        BASE + SPACE + "function: train\n",
        BASE + SPACE + "audit: 2\n",
        "metric: {name: a, goal: up}\n" + SPACE,
        BASE + "parameters: {}\n",
        BASE + "parameters: {x: 3}\n",
        BASE + "parameters: {x: {min: 0}}\n",
        BASE + "parameters: {x: {vales: [1]}}\n",
        BASE + "parameters: {x: {values: []}}\n",
        BASE + "parameters: {x: {values: [1], min: 0, max: 1}}\n",
        BASE + "parameters: {x: {distribution: gauss}}\n",
        "program: a.py\nmethod: magic\n" + SPACE,
    ],
)
def test_what_is_obviously_wrong_is_refused_by_both(validator: Any, tmp_path: Path, text: str) -> None:
    assert not validator.is_valid(read(text))
    with pytest.raises(InvalidConfig):
        parse_spec(read(text), folder=tmp_path, has_budget=True, is_for_reading=True)


def test_every_sampler_and_pruner_can_be_named(validator: Any) -> None:
    for name in SAMPLERS:
        validator.validate(read(BASE + SPACE + f"sampler: {name}\n"))
    for name in PRUNERS:
        validator.validate(read(BASE + SPACE + f"pruner: {name}\n"))


def test_configs_of_docs_and_examples_are_valid(validator: Any) -> None:
    texts = [path.read_text() for path in ROOT.glob("examples/**/sweep*.yaml")]
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL):
        if "parameters:" in block and ("metric" in block):
            texts.append(block)
    assert len(texts) >= 2
    for text in texts:
        validator.validate(read(text))
