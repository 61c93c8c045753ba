"""A sweep as a value: what `sweep.yaml` says, checked as a whole, with every mistake named at once."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from runstone import InvalidConfig
from runstone_sweeps import wandb_config, yamlfile
from runstone_sweeps.algorithms import PRUNERS, SAMPLERS, Algorithm, Known
from runstone_sweeps.command import find_unknown_macros
from runstone_sweeps.space import (
    Choice,
    Constant,
    Parameter,
    Real,
    Space,
    Whole,
    find_clash,
    label,
    last_step,
)

Goal = Literal["minimize", "maximize"]
MAX_GRID = 1_000_000
# What a later run of the same file may change and still go on with the sweep that it began.
BUDGET_KEYS = frozenset({"trials", "parallel", "timeout", "trial_timeout", "grace", "retries"})
_RESERVED = tuple(f"RUNSTONE_{name}" for name in ("WORKSPACE", "PROJECT", "GROUP", "RUN_ID", "TRIAL", "SEED"))
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_OTHER_NAMES = {
    "asha": "successive_halving",
    "sha": "successive_halving",
    "nop": "none",
    "bayes": "tpe",
    "bayesian": "gp",
    "cma": "cmaes",
    "cma-es": "cmaes",
    "sobol": "qmc",
    "nsgaii": "nsga2",
    "nsgaiii": "nsga3",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric that a sweep looks at.

    Attributes:
        name: Exactly as the trials log it.
        goal: `minimize` or `maximize`.
        value: Which of its values counts for a trial: the `last` one, or the `best` one.
    """

    name: str
    goal: Goal
    value: Literal["last", "best"] = "last"


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """All that a config says, checked.

    Attributes:
        name: Readable name; by default that of the file.
        project: Project of the trials' runs; `None`: as for any run.
        script, command, function: What a trial executes; see `docs/sweeps.md`. All `None` for a Python objective.
        working_dir: Folder in which trials start, absolute.
        env: Variables that trials get on top of the coordinator's.
        trials: How many trials there are in all; `None`: as many as fit into `timeout_s`.
        parallel: How many run at once.
        timeout_s: Seconds that the sweep may be at work, all its sessions together.
        trial_timeout_s: Seconds that one trial may take.
        grace_s: Seconds between asking a trial to stop and killing it.
        seed: Seed of the search; `None`: drawn when the sweep is created, and recorded.
        retries: How often a trial is started again after its process was killed by a signal.
        raw: The config itself, as JSON.
        folder: Where relative paths start: the folder of the config.
    """

    name: str
    project: str | None
    script: str | None
    command: tuple[str, ...] | None
    function: str | None
    working_dir: Path
    env: Mapping[str, str]
    metric: Metric
    space: Space
    sampler: Algorithm
    pruner: Algorithm
    trials: int | None
    parallel: int
    timeout_s: float | None
    trial_timeout_s: float | None
    grace_s: float
    seed: int | None
    retries: int
    raw: Mapping[str, Any]
    folder: Path

    @property
    def identity(self) -> str:
        """Equal for configs that search the same thing and differ in their budget at most."""
        kept = {key: value for key, value in self.raw.items() if key not in BUDGET_KEYS}
        text = json.dumps([self.name, str(self.folder), kept], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_spec(path: str | Path, *, has_budget: bool = False) -> SweepSpec:
    """Read and check a config file.

    Args:
        path: The file.
        has_budget: Whether the number of trials or the timeout is given elsewhere, and may be missing here.

    Raises:
        InvalidConfig: the message has one line for each mistake: file, path inside the file, what is
            wrong and what would be right, and the line number.
    """
    path = Path(path)
    raw, lines = yamlfile.read(path)
    folder = path.parent.absolute()
    return parse_spec(raw, folder=folder, file_name=path.name, lines=lines, has_budget=has_budget)


def parse_spec(
    raw: Any,
    *,
    folder: Path,
    file_name: str = "config",
    lines: Mapping[tuple[str | int, ...], int] | None = None,
    has_objective: bool = False,
    has_budget: bool = False,
    is_for_reading: bool = False,
) -> SweepSpec:
    """Check a config that is already a dict, by the same rules as `load_spec`.

    Args:
        raw: The config.
        folder: Where relative paths start, absolute.
        file_name: What the messages start with.
        lines: Line of each path inside the file.
        has_objective: Whether a Python function is tried, so that the config names no program.
        has_budget: As for `load_spec`.
        is_for_reading: Whether nothing is to be run, so that scripts and folders may be gone.

    Raises:
        InvalidConfig: as `load_spec`.
    """
    mistakes = _Mistakes(file_name, lines or {})
    if not isinstance(raw, dict):
        mistakes.add((), f"must be a mapping with keys such as {_words(('metric', 'parameters'))}, got {_kind(raw)}")
        raise mistakes.error()
    if wandb_config.is_wandb(raw):
        raw = wandb_config.translate(raw, mistakes.add)
    shape = _read_shape(raw, mistakes)
    space = _read_space(raw.get("parameters"), mistakes)
    sampler = _read_algorithm(raw.get("sampler", "tpe"), SAMPLERS, ("sampler",), mistakes)
    pruner_raw = raw.get("pruner", "median")
    pruner = _read_algorithm("none" if pruner_raw in (None, False) else pruner_raw, PRUNERS, ("pruner",), mistakes)
    if sampler:
        _check_sampler_fits(sampler, space, mistakes)
    if shape is None:
        raise mistakes.error()
    working_dir = (folder / Path(shape.working_dir or ".").expanduser()).resolve()
    command = _read_command(shape.command)
    if not is_for_reading:
        _check_program(shape, command, space, working_dir, mistakes, has_objective=has_objective)
    is_finite = sampler is not None and SAMPLERS[sampler.name].needs_finite_space
    if shape.trials is None and shape.timeout is None and not (is_finite or has_budget or is_for_reading):
        mistakes.add(("trials",), "is missing; say how many trials to run, or give a timeout")
    if mistakes or sampler is None or pruner is None or shape.metric is None:
        raise mistakes.error()
    trials = shape.trials
    if is_finite and space.size is not None:
        trials = min(trials or space.size, space.size)
    return SweepSpec(
        name=shape.name or Path(file_name).stem,
        project=shape.project,
        script=shape.script,
        command=command,
        function=shape.function,
        working_dir=working_dir,
        env={name: _env_text(value) for name, value in shape.env.items()},
        metric=Metric(shape.metric.name, shape.metric.goal, shape.metric.value),
        space=space,
        sampler=sampler,
        pruner=pruner,
        trials=trials,
        parallel=shape.parallel,
        timeout_s=shape.timeout,
        trial_timeout_s=shape.trial_timeout,
        grace_s=shape.grace,
        seed=shape.seed,
        retries=shape.retries,
        raw=raw,
        folder=folder,
    )


def parse_duration(value: object) -> object:
    """Return seconds for `90`, `"90s"`, `"10m"`, `"1h30m"`, `"2d"`.

    Raises:
        ValueError: it is none of these; the message says what is allowed.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip().lower())
        if not match or not any(match.groups()):
            raise ValueError(f"is {value!r}; write seconds, or a time such as 90s, 10m, 1h30m, 2d")
        return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True))
    return value


_Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=1024)]


class _MetricShape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name
    goal: Goal
    value: Literal["last", "best"] = "last"


class _Shape(BaseModel):
    """The keys of a config and the types of their values; what hangs together is checked afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name | None = None
    project: _Name | None = None
    script: _Name | None = None
    command: Any = None
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    working_dir: str | None = None
    env: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    metric: _MetricShape | None = None
    parameters: Any = None
    sampler: Any = None
    pruner: Any = None
    trials: Annotated[int, Field(ge=1)] | None = None
    parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    timeout: _Duration | None = None
    trial_timeout: _Duration | None = None
    grace: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)] = 30.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    retries: Annotated[int, Field(ge=0)] = 0


class _RangeShape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    min: float | int
    max: float | int
    log: bool = False
    step: float | int | None = None
    type: Literal["int", "float"] | None = None


_PARAMETER_KEYS = ("min", "max", "log", "step", "type", "values", "value", "parameters")


class _Mistakes:
    """Collects what is wrong, in the order in which it was found."""

    def __init__(self, file_name: str, lines: Mapping[tuple[str | int, ...], int]) -> None:
        self._file_name = file_name
        self._lines = lines
        self._messages: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, path: Sequence[str | int], message: str) -> None:
        path = tuple(path)
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        line = f" (line {self._lines[known]})" if known in self._lines and known else ""
        where = f"{'.'.join(map(str, path))}: " if path else ""
        self._messages[f"{self._file_name}: {where}{message}{line}"] = None

    def error(self) -> InvalidConfig:
        return InvalidConfig("\n".join(self._messages))


def _read_shape(raw: dict[str, Any], mistakes: _Mistakes) -> _Shape | None:
    try:
        shape = _Shape.model_validate(raw)
    except ValidationError as error:
        _add_errors(error, (), mistakes, {(): _Shape, ("metric",): _MetricShape})
        return None
    if shape.metric is None:
        mistakes.add(("metric",), "is missing; write `metric: {name: val/loss, goal: minimize}`")
    return shape


def _add_errors(
    error: ValidationError,
    prefix: tuple[str | int, ...],
    mistakes: _Mistakes,
    models: Mapping[tuple[str | int, ...], type[BaseModel]],
) -> None:
    """Say each of pydantic's findings in one plain sentence."""
    said = set()
    for found in error.errors():
        # Each member of a union complains on its own, and adds a part such as "float" to the path.
        inner = tuple(p for p in found["loc"] if p not in ("float", "int", "bool", "str", "nullable"))
        if inner in said:
            continue
        said.add(inner)
        parent = models.get(inner[:-1])
        value = found["input"]
        message = found["msg"]
        match found["type"]:
            case "extra_forbidden":
                message = f"is not a key here{_nearest(str(inner[-1]), parent.model_fields if parent else ())}"
            case "missing":
                message = "is missing"
                if inner[-1:] == ("goal",):
                    message += "; write minimize or maximize"
            case "literal_error":
                allowed = found["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
                message = f"is {_quote(value)}{_nearest(str(value), allowed)}"
            case "int_type" | "int_from_float" | "int_parsing":
                message = f"must be a whole number, got {_show(value)}"
            case "float_type" | "float_parsing":
                message = f"must be a number, got {_show(value)}"
            case "bool_type":
                message = f"must be true or false, got {_show(value)}"
            case "string_type":
                message = f"must be text, got {_show(value)}"
            case "string_too_short":
                message = "is empty"
            case "string_too_long":
                message = f"is too long: {len(value)} characters"
            case "dict_type" | "model_type" | "model_attributes_type":
                message = f"must be a mapping, got {_show(value)}"
            case "string_pattern_mismatch":
                message = f"is {_quote(value)}; write it as module:function, such as train:objective"
            case "greater_than":
                message = f"is {_show(value)}; it must be above {found['ctx']['gt']:g}"
            case "greater_than_equal":
                message = f"is {_show(value)}; it must be at least {found['ctx']['ge']:g}"
            case "less_than_equal":
                message = f"is {_show(value)}; it must be at most {found['ctx']['le']:g}"
            case "less_than":
                message = f"is {_show(value)}; it must be below {found['ctx']['lt']:g}"
            case "finite_number":
                message = f"is {_show(value)}; it must be finite"
            case "value_error":
                message = str(found["ctx"]["error"])
        mistakes.add((*prefix, *inner), message)


def _read_space(raw: Any, mistakes: _Mistakes) -> Space:
    if raw is None or raw == {}:
        mistakes.add(("parameters",), "is missing; name what to search, as `lr: {min: 1e-4, max: 1e-1, log: true}`")
        return Space(())
    if not isinstance(raw, dict):
        mistakes.add(("parameters",), f"must be a mapping from names to ranges, got {_show(raw)}")
        return Space(())
    found = list(_read_parameters(raw, (), ("parameters",), mistakes))
    names = [parameter.name for parameter in found]
    for name in {name for name in names if names.count(name) > 1}:
        mistakes.add(("parameters",), f"{name} is defined twice, once with dots and once nested")
    if clash := find_clash(names):
        mistakes.add(("parameters",), f"{clash[0]} is a value and also holds {clash[1]}; rename one of them")
    return Space(tuple(found))


def _read_parameters(
    raw: dict[Any, Any], folder: tuple[str, ...], path: tuple[str | int, ...], mistakes: _Mistakes
) -> Iterable[Parameter]:
    for key, body in raw.items():
        here = (*path, key)
        parts = (*folder, *str(key).split("."))
        if not all(part.strip() for part in parts):
            mistakes.add(here, "a part of this name is empty")
            continue
        name = ".".join(parts)
        if not isinstance(body, dict):
            needed = _words(("min and max", "values", "value"))
            mistakes.add(here, f"must be a mapping with {needed}, got {_show(body)}")
        elif set(body) == {"parameters"} and isinstance(body["parameters"], dict):
            yield from _read_parameters(body["parameters"], parts, (*here, "parameters"), mistakes)
        elif parameter := _read_parameter(name, body, here, mistakes):
            yield parameter


def _read_parameter(
    name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: _Mistakes
) -> Parameter | None:
    kinds: list[str] = [kind for kind in ("value", "values", "parameters") if kind in body]
    if "min" in body or "max" in body:
        kinds.append("min and max")
    if not kinds:
        unknown = [key for key in body if key not in _PARAMETER_KEYS]
        for key in unknown:
            mistakes.add((*path, key), f"is not a key here{_nearest(str(key), _PARAMETER_KEYS)}")
        if not unknown:
            mistakes.add(path, f"needs {_words(('min and max', 'values', 'value', 'parameters'))}")
        return None
    if len(kinds) > 1:
        mistakes.add(path, f"has {' and also '.join(kinds)}; keep one of them")
        return None
    if kinds[0] == "min and max":
        return _read_range(name, body, path, mistakes)
    extra = [key for key in body if key != kinds[0]]
    for key in extra:
        mistakes.add((*path, key), f"does not go with {kinds[0]}")
    if extra:
        return None
    if kinds[0] == "parameters":
        mistakes.add((*path, "parameters"), f"must be a mapping of parameters, got {_show(body['parameters'])}")
        return None
    return _read_values(name, body, path, mistakes)


def _read_values(
    name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: _Mistakes
) -> Choice | Constant | None:
    if "value" in body:
        return Constant(name, body["value"])
    values = body["values"]
    if not isinstance(values, list) or not values:
        mistakes.add((*path, "values"), f"must be a list with at least one value, got {_show(values)}")
        return None
    labels = [label(value) for value in values]
    for index, value in enumerate(labels):
        if isinstance(value, float) and not math.isfinite(value):
            mistakes.add((*path, "values", index), f"is {value}; a value must be finite")
            return None
        # Python and the samplers hold 1, 1.0 and true for the same.
        if value in labels[:index]:
            other = _show(values[labels.index(value)])
            mistakes.add((*path, "values", index), f"{_show(values[index])} equals {other}")
            return None
    return Choice(name, tuple(values))


def _read_range(
    name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: _Mistakes
) -> Real | Whole | None:
    try:
        shape = _RangeShape.model_validate(body)
    except ValidationError as error:
        _add_errors(error, path, mistakes, {(): _RangeShape})
        return None
    low, high, step = shape.min, shape.max, shape.step
    is_whole = shape.type == "int" or (
        shape.type is None and all(isinstance(n, int) for n in (low, high, step) if n is not None)
    )
    before = _Count(mistakes)
    for key, number in (("min", low), ("max", high), ("step", step)):
        if number is not None and not math.isfinite(number):
            before.add((*path, key), f"is {number}; it must be finite")
        elif number is not None and is_whole and number != int(number):
            before.add((*path, key), f"is {number}; a parameter of type int needs whole numbers")
        elif number is not None and abs(number) > 2**53 and is_whole:
            before.add((*path, key), f"is {number}; whole numbers beyond 2^53 are not searched")
    if before.count:
        return None
    if low > high:
        before.add((*path, "min"), f"{low} is above max {high}")
    if shape.log and low <= 0:
        before.add((*path, "min"), f"is {low}; a log scale needs a min above 0")
    if step is not None and step <= 0:
        before.add((*path, "step"), f"is {step}; it must be above 0")
    elif step is not None and shape.log:
        before.add((*path, "step"), "does not go with log: true; leave one of them out")
    elif step is not None and step > high - low and low != high:
        before.add((*path, "step"), f"{step} is wider than the range from {low} to {high}")
    if before.count:
        return None
    if is_whole:
        whole_step = int(step or 1)
        return Whole(name, int(low), int(high) - (int(high) - int(low)) % whole_step, shape.log, whole_step)
    top = last_step(low, high, step) if step else float(high)
    return Real(name, float(low), top, shape.log, None if step is None else float(step))


class _Count:
    """Adds mistakes and knows how many it added."""

    def __init__(self, mistakes: _Mistakes) -> None:
        self.count = 0
        self._mistakes = mistakes

    def add(self, path: Sequence[str | int], message: str) -> None:
        self.count += 1
        self._mistakes.add(path, message)


def _read_algorithm(
    raw: Any, known: Mapping[str, Known], path: tuple[str | int, ...], mistakes: _Mistakes
) -> Algorithm | None:
    """Read `tpe`, or `{name: tpe, n_startup_trials: 20}`."""
    options = {}
    name = raw
    if isinstance(raw, dict):
        options = {key: value for key, value in raw.items() if key != "name"}
        name = raw.get("name")
    what = "pruner" if known is PRUNERS else "sampler"
    if not isinstance(name, str):
        mistakes.add(path, f"must be the name of a {what} or a mapping with its name, got {_show(raw)}")
        return None
    if name not in known:
        where = (*path, "name") if isinstance(raw, dict) else path
        mistakes.add(where, f"there is no {what} {name[:60]!r}{_nearest(name, known)}")
        return None
    entry = known[name]
    checked: dict[str, Any] = dict(entry.defaults)
    is_right = True
    for key, value in options.items():
        if key not in entry.options:
            mistakes.add((*path, key), f"the {what} {name} has no such option{_nearest(str(key), entry.options)}")
            is_right = False
            continue
        value = _read_option(value, entry.options[key], (*path, key), mistakes)
        is_right = is_right and value is not _WRONG
        checked[key] = value
    for key in entry.required:
        if key not in checked:
            mistakes.add((*path, key), f"is missing; the {what} {name} needs it")
            is_right = False
    return Algorithm(name, checked) if is_right else None


_WRONG = object()


def _read_option(value: Any, kind: Any, path: tuple[str | int, ...], mistakes: _Mistakes) -> Any:
    """Return the value of an option, or `_WRONG` after saying why."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    expected = ""
    if kind == "sampler":
        return _read_algorithm(value, SAMPLERS, path, mistakes) or _WRONG
    if kind == "pruner":
        return _read_algorithm(value, PRUNERS, path, mistakes) or _WRONG
    if isinstance(kind, tuple):
        if value in kind:
            return value
        mistakes.add(path, f"is {_quote(value)}{_nearest(str(value), kind)}")
        return _WRONG
    if kind == "int" and not (is_number and isinstance(value, int)):
        expected = "a whole number"
    elif kind == "float" and not is_number:
        expected = "a number"
    elif kind == "bool" and not isinstance(value, bool):
        expected = "true or false"
    elif kind == "resource" and value != "auto" and not (is_number and isinstance(value, int)):
        expected = "a whole number or auto"
    elif kind == "params" and not (isinstance(value, dict) and value):
        expected = "a mapping from parameters to values"
    if expected:
        mistakes.add(path, f"must be {expected}, got {_show(value)}")
        return _WRONG
    return float(value) if kind == "float" else value


def _check_sampler_fits(sampler: Algorithm, space: Space, mistakes: _Mistakes) -> None:
    if SAMPLERS[sampler.name].needs_finite_space:
        for parameter in space.searched:
            if parameter.size is None:
                path = ("parameters", *parameter.name.split("."))
                mistakes.add(path, f"the sampler {sampler.name} needs a step or values, not a continuous range")
        if (space.size or 0) > MAX_GRID:
            mistakes.add(("sampler",), f"the grid has {space.size:,} points; at most {MAX_GRID:,} are kept")
    if sampler.name == "partial_fixed":
        names = [parameter.name for parameter in space.searched]
        for name in sampler.options.get("fixed_params", {}):
            if name not in names:
                path = ("sampler", "fixed_params", name)
                mistakes.add(path, f"is not a searched parameter{_nearest(str(name), names)}")


def _read_command(raw: Any) -> tuple[str, ...] | None:
    """Return the words of a command, `()` where it is neither text nor a list of words."""
    if raw is None:
        return None
    if isinstance(raw, str):
        try:
            return tuple(shlex.split(raw))
        except ValueError:
            return ()
    if isinstance(raw, list) and all(isinstance(w, (str, int, float)) and not isinstance(w, bool) for w in raw):
        return tuple(map(str, raw))
    return ()


def _check_program(
    shape: _Shape,
    command: tuple[str, ...] | None,
    space: Space,
    working_dir: Path,
    mistakes: _Mistakes,
    *,
    has_objective: bool,
) -> None:
    """Check that exactly one thing to execute is named, and that it is there."""
    named = [key for key in ("script", "command", "function") if getattr(shape, key) is not None]
    if has_objective and named:
        mistakes.add((named[0],), "does not go with an objective given in Python")
    elif not named and not has_objective:
        message = "is missing; say what to run: script: train.py, command: [...] or function: module:name"
        mistakes.add(("script",), message)
    elif "function" in named and len(named) > 1:
        mistakes.add(("function",), f"does not go with {named[0]}; keep one of them")
    for name in shape.env:
        if name in _RESERVED:
            mistakes.add(("env", name), "is set by the sweep for each trial and cannot be given")
        elif not name or "=" in name or "\0" in name:
            mistakes.add(("env", name), "is not a legal name of a variable")
    if command is not None and not command:
        mistakes.add(("command",), f"must be a list of words, got {_show(shape.command)}")
    for macro in find_unknown_macros(command or (), space):
        names = ("args", "args_no_hyphens", "args_json", "env", "interpreter", "program")
        near = _nearest(macro, (*names, *(p.name for p in space)))
        mistakes.add(("command",), f"${{{macro}}} stands for nothing{near}")
    if not working_dir.is_dir():
        mistakes.add(("working_dir",), f"there is no folder {working_dir}")
        return
    if shape.script is not None and not (working_dir / shape.script).is_file():
        there = [entry.name for entry in working_dir.iterdir() if entry.suffix in (".py", ".sh")]
        near = _nearest(shape.script, there) if there else ""
        mistakes.add(("script",), f"there is no file {shape.script!r} in {working_dir}{near}")
    if command and "${" not in command[0]:
        is_path = "/" in command[0]
        if not (shutil.which(working_dir / command[0]) if is_path else shutil.which(command[0])):
            mistakes.add(("command", 0), f"there is no program {command[0]!r}")


def _env_text(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that offers what was probably meant, or all there is where that is little."""
    names = list(names)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if not close and _OTHER_NAMES.get(name.lower()) in names:
        close = [_OTHER_NAMES[name.lower()]]
    if close:
        return f"; did you mean {close[0]}?"
    if not names:
        return "; it takes none"
    return f"; there is {_words(names)}" if len(names) <= 24 else ""


def _words(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _show(value: Any) -> str:
    """Return a value as a message shows it, short, with its kind where that may be the mistake."""
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, (dict, list)):
        return _kind(value)
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quote(value: Any) -> str:
    """Return a word that is not one of those allowed."""
    return repr(value[:60]) if isinstance(value, str) else _show(value)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return _show(value)
