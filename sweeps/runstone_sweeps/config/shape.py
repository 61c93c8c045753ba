"""The keys of a config and the types of their values, and pydantic's findings in plain sentences.

What hangs together is checked where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from runstone_sweeps.config.mistakes import Mistakes, nearest, quote, show
from runstone_sweeps.config.quantities import parse_bytes, parse_duration, parse_energy
from runstone_sweeps.spec import Goal
from runstone_sweeps.spec.options import MOST_PARALLEL, Aggregate, Duplicates, StartMode

_Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
_PauseBetween = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
_Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=1024)]
_Count = Annotated[int, Field(ge=0)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _one_or_more(value: Any) -> Any:
    """Read one word as a list of one."""
    return [value] if isinstance(value, str) else value


def _retries(value: Any) -> Any:
    """Read `2` as that many starts after a crash and after memory ran out, which is a crash too."""
    return {"crash": value, "oom": value} if _is_number(value) else value


def _replicates(value: Any) -> Any:
    return {"count": value} if _is_number(value) else value


def _terminator(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    return value


def _executor(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class MetricShape(_Strict):
    name: _Name
    goal: Goal
    value: Literal["last", "best"] = "last"
    target: _Finite | None = None


class ConstraintShape(_Strict):
    metric: _Name
    min: _Finite | None = None
    max: _Finite | None = None


class ReplicatesShape(_Strict):
    count: Annotated[int, Field(ge=1, le=1024)]
    aggregate: Aggregate = "median"


class TerminatorShape(_Strict):
    min_trials: Annotated[int, Field(ge=2)] = 20
    patience: Annotated[int, Field(ge=1)] | None = None
    min_gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class RetriesShape(_Strict):
    crash: _Count = 0
    oom: _Count = 0
    preempted: _Count = 10
    nan: _Count = 0
    backoff: _PauseBetween = 1.0


class PricesShape(_Strict):
    gpu_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    cpu_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    kwh: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class BudgetShape(_Strict):
    gpu_hours: _Amount | None = None
    energy: Annotated[float, BeforeValidator(parse_energy), Field(gt=0, allow_inf_nan=False)] | None = None
    cost: _Amount | None = None
    prices: PricesShape = Field(default_factory=PricesShape)


class ExecutorShape(BaseModel):
    # Each executor checks its own options.
    model_config = ConfigDict(extra="allow", strict=True)

    name: Literal["local", "workers", "ray", "slurm"]


class Shape(_Strict):
    """The keys of a config."""

    name: _Name | None = None
    project: _Name | None = None
    script: _Name | None = None
    command: Any = None
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    working_dir: str | None = None
    env: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    metric: MetricShape | None = None
    metrics: Annotated[list[MetricShape], Field(min_length=1)] | None = None
    prune_on: _Name | None = None
    constraints: list[ConstraintShape] = Field(default_factory=list)
    parameters: Any = None
    points: Any = None
    extends: Annotated[list[_Name], BeforeValidator(_one_or_more)] = Field(default_factory=list)
    sampler: Any = None
    pruner: Any = None
    min_per_branch: _Count = 3
    trials: Annotated[int, Field(ge=1)] | None = None
    parallel: Annotated[int, Field(ge=1, le=MOST_PARALLEL)] | None = None
    replicates: Annotated[ReplicatesShape, BeforeValidator(_replicates)] = ReplicatesShape(count=1)
    duplicates: Duplicates = "allow"
    timeout: _Duration | None = None
    trial_timeout: _Duration | None = None
    no_report_timeout: _Duration | None = None
    grace: _PauseBetween = 30.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    retries: Annotated[RetriesShape, BeforeValidator(_retries)] = RetriesShape()
    budget: BudgetShape = Field(default_factory=BudgetShape)
    terminator: Annotated[TerminatorShape | None, BeforeValidator(_terminator)] = None
    audit: Annotated[float, Field(ge=0, le=1)] = 0.0
    gpus: Annotated[float, Field(ge=0, le=1024)] | None = None
    devices: Annotated[list[_Count], Field(min_length=1)] | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)] | None = None
    start: StartMode = "auto"
    preload: Annotated[list[_Name], BeforeValidator(_one_or_more)] = Field(default_factory=list)
    executor: Annotated[ExecutorShape, BeforeValidator(_executor)] = ExecutorShape(name="local")
    storage: Annotated[str, Field(pattern=r"^[\w+]+://.+$")] | None = None


class RangeShape(_Strict):
    min: float | int
    max: float | int
    log: bool = False
    step: float | int | None = None
    type: Literal["int", "float"] | None = None


class DrawnShape(_Strict):
    distribution: Literal["normal", "log_normal", "beta", "uniform", "log_uniform", "inv_log_uniform"]
    mu: _Finite = 0.0
    sigma: _Amount = 1.0
    a: _Amount = 1.0
    b: _Amount = 1.0
    min: _Finite | None = None
    max: _Finite | None = None
    step: _Amount | Annotated[int, Field(gt=0)] | None = None
    type: Literal["int", "float"] | None = None


CONFIG_KEYS = tuple(Shape.model_fields)
_INNER: Mapping[str, type[BaseModel]] = {
    "metric": MetricShape,
    "metrics": MetricShape,
    "constraints": ConstraintShape,
    "replicates": ReplicatesShape,
    "terminator": TerminatorShape,
    "retries": RetriesShape,
    "budget": BudgetShape,
    "prices": PricesShape,
}
_PATTERNS = {
    "function": "write it as module:function, such as train:objective",
    "storage": "write a URL, such as sqlite:///study.db",
}


def read_shape(raw: dict[str, Any], mistakes: Mistakes) -> Shape | None:
    """Check keys and types; `None` where something is wrong."""
    try:
        return Shape.model_validate(raw)
    except ValidationError as error:
        add_errors(error, (), mistakes, Shape)
        return None


def add_errors(
    error: ValidationError,
    prefix: tuple[str | int, ...],
    mistakes: Mistakes,
    root: type[BaseModel],
) -> None:
    """Say each of pydantic's findings in one plain sentence; `root` is what was read at `prefix`."""
    said = set()
    for found in error.errors():
        # Each member of a union complains on its own, and adds a part such as "float" to the path.
        inner = tuple(p for p in found["loc"] if p not in ("float", "int", "bool", "str", "nullable"))
        if inner in said:
            continue
        said.add(inner)
        folders = [part for part in inner[:-1] if isinstance(part, str)]
        parent = _INNER.get(folders[-1]) if folders else root
        value = found["input"]
        message = found["msg"]
        match found["type"]:
            case "extra_forbidden":
                message = f"is not a key here{nearest(str(inner[-1]), parent.model_fields if parent else ())}"
            case "missing":
                message = "is missing"
                if inner[-1:] == ("goal",):
                    message += "; write minimize or maximize"
            case "literal_error":
                allowed = found["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
                message = f"is {quote(value)}{nearest(str(value), allowed)}"
            case "int_type" | "int_from_float" | "int_parsing":
                message = f"must be a whole number, got {show(value)}"
            case "float_type" | "float_parsing":
                message = f"must be a number, got {show(value)}"
            case "bool_type":
                message = f"must be true or false, got {show(value)}"
            case "string_type":
                message = f"must be text, got {show(value)}"
            case "string_too_short":
                message = "is empty"
            case "string_too_long":
                message = f"is too long: {len(value)} characters"
            case "list_type":
                message = f"must be a list, got {show(value)}"
            case "too_short":
                message = "must have at least one entry"
            case "dict_type" | "model_type" | "model_attributes_type":
                message = f"must be a mapping, got {show(value)}"
            case "string_pattern_mismatch":
                message = f"is {quote(value)}; {_PATTERNS[str(inner[-1])]}"
            case "greater_than":
                message = f"is {show(value)}; it must be above {found['ctx']['gt']:g}"
            case "greater_than_equal":
                message = f"is {show(value)}; it must be at least {found['ctx']['ge']:g}"
            case "less_than_equal":
                message = f"is {show(value)}; it must be at most {found['ctx']['le']:g}"
            case "less_than":
                message = f"is {show(value)}; it must be below {found['ctx']['lt']:g}"
            case "finite_number":
                message = f"is {show(value)}; it must be finite"
            case "value_error":
                message = str(found["ctx"]["error"])
        mistakes.add((*prefix, *inner), message)
