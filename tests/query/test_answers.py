"""The answers of the index equal a plain Python evaluation of the same filter over the same runs' files."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import runstone
from runstone.index.conditions import (
    EVERY_RUN,
    All,
    AnyOf,
    At,
    Attribute,
    Compare,
    Condition,
    Contains,
    Count,
    Environment,
    Field,
    Glob,
    HasValue,
    Like,
    Metric,
    Not,
    OneOf,
    Order,
    Param,
    Statistic,
    Tag,
)
from runstone.query import find_runs, page_of_runs, parse_filter, parse_order
from runstone.runinfo import RunInfo

pytestmark = pytest.mark.usefixtures("place_of_index")

# --- the plain evaluation ---------------------------------------------------------------------------------------------


def values_of(field: Field, run: RunInfo) -> list[Any]:
    """Return what a run has under a field; several where two params share a readable name."""
    match field:
        case Metric(name, statistic):
            summary = run.metrics.get(name)
            value = getattr(summary, statistic.value) if summary is not None else None
            return [] if value is None else [value]
        case Tag(name):
            return [run.tags[name]] if name in run.tags else []
        case Param(keys, is_exact):
            found = [value for path, value in leaves(run.params) if same_name(path, keys, is_exact=is_exact)]
            return [value for value in found if value is not None]
        case At(name, step):
            if name not in run.metrics:
                return []
            series = run.series(name)
            pairs = zip(series.step.tolist(), series.value.tolist(), strict=True)
            return [float(value) for at, value in pairs if at == step][-1:]
        case Environment(keys):
            wanted = tuple(part for key in keys for part in key.split("."))
            return [value for path, value in environment_leaves(run) if fits(wanted, path)]
        case Count(kind, pattern):
            return [sum(is_glob(name, pattern) for name in names_of(run, kind))]
        case Attribute("dataset" | "model" as kind):
            links = [link for link in (*run.inputs, *run.outputs) if link.kind == kind]
            versioned = [f"{link.name}@{link.version}" for link in links if link.version is not None]
            return [link.name for link in links] + versioned
        case Attribute("artifact"):
            return [artifact.name for artifact in run.artifacts]
        case Attribute(name):
            value = attribute(run, name)
            return [] if value is None else [value]


def names_of(run: RunInfo, kind: str) -> set[str]:
    match kind:
        case "metrics":
            return set(run.metrics)
        case "tags":
            return set(run.tags)
        case "artifact":
            return {artifact.name for artifact in run.artifacts}
        case "dataset" | "model":
            return {link.name for link in (*run.inputs, *run.outputs) if link.kind == kind}
        case _:
            raise AssertionError(kind)


def environment_leaves(run: RunInfo) -> list[tuple[tuple[str, ...], Any]]:
    snapshot = dict(run.environment or {})
    packages = snapshot.get("packages")
    if isinstance(packages, dict) and isinstance(packages.get("installed"), list):
        versions = {one["name"]: one["version"] for one in packages["installed"]}
        snapshot["packages"] = {**{key: value for key, value in packages.items() if key != "installed"}, **versions}
    split = ((tuple(part for key in path for part in key.split(".")), value) for path, value in leaves(snapshot))
    return [(path, value) for path, value in split if value is not None]


def may_be_left_out(key: str) -> bool:
    return key in ("devices", "installed") or (key.isascii() and key.isdigit())


def fits(wanted: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Try every way of leaving keys out."""
    if not path:
        return not wanted
    if wanted and wanted[0] == path[0] and fits(wanted[1:], path[1:]):
        return True
    return may_be_left_out(path[0]) and fits(wanted, path[1:])


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, str(index)))
    else:
        yield path, json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def same_name(path: tuple[str, ...], keys: tuple[str, ...], *, is_exact: bool) -> bool:
    return path == keys if is_exact else ".".join(path) == ".".join(keys)


def lies_below(path: tuple[str, ...], keys: tuple[str, ...], *, is_exact: bool) -> bool:
    if is_exact:
        return len(path) > len(keys) and path[: len(keys)] == keys
    return ".".join(path).startswith(".".join(keys) + ".")


def attribute(run: RunInfo, name: str) -> Any:
    match name:
        case "duration":
            return run.duration_s
        case "attempts":
            return len(run.attempts)
        case "failure":
            return f"{run.failure.type}: {run.failure.message}" if run.failure else None
        case "started_at" | "ended_at":
            moment = getattr(run, name)
            return moment.timestamp() if moment else None
        case "status":
            return run.status.value
        case "pinned" | "archived" | "deleted":
            return getattr(run, f"is_{name}")
        case "energy_j" | "energy_cost" | "carbon_g":
            return None  # nothing was metered
        case _:
            return getattr(run, name)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stored(value: Any) -> Any:
    """Integers beyond 64 bits are compared as floats."""
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def relates(value: Any, comparison: str, literal: Any) -> bool:
    if is_number(value) != is_number(literal) or isinstance(value, bool) != isinstance(literal, bool):
        return False
    if is_number(value):
        value, literal = stored(value), stored(literal)
        if isinstance(literal, float) and math.isnan(literal):
            return isinstance(value, float) and math.isnan(value)
    match comparison:
        case "=":
            return bool(value == literal)
        case "<":
            return bool(value < literal)
        case "<=":
            return bool(value <= literal)
        case ">":
            return bool(value > literal)
        case _:
            return bool(value >= literal)


def is_like(text: str, pattern: str) -> bool:
    """Match by trying every split: slow and plain."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(is_like(text[n:], pattern[1:]) for n in range(len(text) + 1))
    if pattern[0] == "_":
        return bool(text) and is_like(text[1:], pattern[1:])
    if pattern[0] == "\\" and pattern[1:2] in ("%", "_", "\\") and len(pattern) > 1:
        return text[:1] == pattern[1] and is_like(text[1:], pattern[2:])
    return text[:1] == pattern[0] and is_like(text[1:], pattern[1:])


def is_glob(text: str, pattern: str) -> bool:
    """Match by trying every split."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(is_glob(text[n:], pattern[1:]) for n in range(len(text) + 1))
    if pattern[0] == "[" and (end := pattern.find("]", 3 if pattern[1:2] in ("!", "^") else 2)) > 0:
        negated = pattern[1] in "!^"
        members = pattern[2 if negated else 1 : end]
        return bool(text) and is_member(text[0], members) != negated and is_glob(text[1:], pattern[end + 1 :])
    if pattern[0] == "?":
        return bool(text) and is_glob(text[1:], pattern[1:])
    return text[:1] == pattern[0] and is_glob(text[1:], pattern[1:])


def is_member(character: str, members: str) -> bool:
    while members:
        if members[1:2] == "-" and len(members) > 2:
            if members[0] <= character <= members[2]:
                return True
            members = members[3:]
        else:
            if members[0] == character:
                return True
            members = members[1:]
    return False


def holds(condition: Condition, run: RunInfo) -> bool:
    match condition:
        case All(conditions):
            return all(holds(inner, run) for inner in conditions)
        case AnyOf(conditions):
            return any(holds(inner, run) for inner in conditions)
        case Not(inner):
            return not holds(inner, run)
        case HasValue(field, or_below):
            below = (
                or_below
                and isinstance(field, Param)
                and any(lies_below(path, field.keys, is_exact=field.is_exact) for path, _value in leaves(run.params))
            )
            if or_below and isinstance(field, Environment):
                wanted = tuple(part for key in field.keys for part in key.split("."))
                for path, _value in environment_leaves(run):
                    below = below or any(fits(wanted, path[:end]) for end in range(1, len(path)))
            return bool(values_of(field, run)) or below
        case Glob(field, pattern):
            return any(is_glob(value, pattern) for value in values_of(field, run) if isinstance(value, str))
        case Compare(field, comparison, literal):
            return any(relates(value, comparison, literal) for value in values_of(field, run))
        case OneOf(field, literals):
            return any(relates(value, "=", literal) for value in values_of(field, run) for literal in literals)
        case Contains(field, text):
            return any(isinstance(value, str) and text in value for value in values_of(field, run))
        case Like(field, pattern, ignore_case):
            return any(
                is_like(*((value.casefold(), pattern.casefold()) if ignore_case else (value, pattern)))
                for value in values_of(field, run)
                if isinstance(value, str)
            )


def compare_by(orders: tuple[Order, ...]) -> Any:
    def rank(value: Any) -> tuple[int, Any]:
        if isinstance(value, bool):
            return 2, value
        return (0, stored(value)) if is_number(value) else (1, value)

    def compare(left: RunInfo, right: RunInfo) -> int:
        for order in orders:
            pair = []
            for run in (left, right):
                values = [value for value in values_of(order.field, run) if value == value]  # NaN counts as nothing
                pair.append(min(map(rank, values)) if values else (9, 0))
            (kind_a, a), (kind_b, b) = pair
            if kind_a != kind_b:
                return -1 if kind_a < kind_b else 1
            if a != b:
                return (-1 if a < b else 1) * (-1 if order.descending else 1)
        newest = (right.started_at, right.id) > (left.started_at, left.id)
        return 1 if newest else -1

    return cmp_to_key(compare)


# --- random runs and filters ------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, 2**70, -(2**70), 0.5, -0.0, 1e300, math.inf, -math.inf, math.nan]),
)
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "A",
        "ab",
        "a%b",
        "a_b",
        "[a]*",
        "é",
        "É",
        "ß",
        "ss",
        "1",
        "true",
        "it's",
        '"',
        "\\",
        "a\\b",
        "語",
        "a\nb",
    ]
)
LITERALS = st.one_of(NUMBERS, TEXTS, st.booleans())
LEAVES = st.one_of(LITERALS, st.none(), st.none(), st.lists(st.integers(0, 2), max_size=2))
KEYS = st.sampled_from(["a", "b", "a.b", "0", "sp ace"])
PARAMS = st.dictionaries(
    KEYS,
    st.one_of(
        LEAVES,
        st.dictionaries(KEYS, st.one_of(LEAVES, st.dictionaries(KEYS, LEAVES, max_size=2)), max_size=2),
        st.lists(st.dictionaries(KEYS, LEAVES, max_size=1), max_size=2),
    ),
    max_size=4,
)
METRIC_NAMES = ["loss", "val/acc", "x.max", "top 5", "min"]
POINTS = st.one_of(st.floats(width=32), st.integers(-2, 2), st.booleans())
DEVICES = st.fixed_dictionaries({}, optional={"name": TEXTS, "memory": st.integers(0, 2)})
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "user": LEAVES,
        "gpu": st.fixed_dictionaries(
            {}, optional={"devices": st.lists(DEVICES, max_size=2), "name": TEXTS, "n": LEAVES}
        ),
        "cpu": st.fixed_dictionaries({}, optional={"cores": st.integers(0, 2), "nodes": st.just({"0": "0-1"})}),
        "packages": st.fixed_dictionaries(
            {
                "installed": st.lists(
                    st.sampled_from([{"name": "torch", "version": "2.1"}, {"name": "a.b", "version": "1"}]), max_size=2
                )
            }
        ),
    },
)
RUNS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["one", "two", "ONE", "a%b"]),
        "project": st.sampled_from(["p", "q r"]),
        "group": st.one_of(st.none(), st.sampled_from(["g", "h"])),
        "notes": st.one_of(st.none(), TEXTS),
        "params": PARAMS,
        "tags": st.dictionaries(st.sampled_from(["stage", "x y", "a.b"]), TEXTS, max_size=2),
        "metrics": st.dictionaries(st.sampled_from(METRIC_NAMES), st.lists(POINTS, min_size=1, max_size=4), max_size=3),
        "status": st.sampled_from(["finished", "stopped", "pruned", "failed"]),
        "marks": st.sets(st.sampled_from(["pinned", "archived"])),
        "links": st.lists(
            st.tuples(
                st.sampled_from(["input", "output"]),
                st.sampled_from(["dataset", "model"]),
                st.sampled_from(["loans", "a*b"]),
                st.sampled_from([None, "1", "2"]),
            ),
            max_size=3,
        ),
        "artifacts": st.sets(st.sampled_from(["weights", "plots/a"])),
        "environment": st.one_of(st.none(), ENVIRONMENTS),
    }
)

PARAM_FIELDS = st.one_of(
    st.builds(Param, st.lists(KEYS, min_size=1, max_size=2).map(tuple), st.just(True)),
    st.builds(Param, st.lists(st.sampled_from(["a", "b", "0"]), min_size=1, max_size=3).map(tuple)),
)
METRIC_FIELDS = st.builds(Metric, st.sampled_from([*METRIC_NAMES, "absent"]), st.sampled_from(Statistic))
AT_FIELDS = st.builds(At, st.sampled_from([*METRIC_NAMES, "absent"]), st.integers(-1, 4))
ENVIRONMENT_FIELDS = st.builds(
    Environment,
    st.sampled_from(
        [
            *(
                ("user",),
                ("gpu", "name"),
                ("gpu", "devices", "0", "name"),
                ("gpu", "0", "name"),
                ("gpu", "1", "memory"),
            ),
            *(
                ("gpu", "memory"),
                ("gpu",),
                ("gpu", "1"),
                ("cpu",),
                ("cpu", "cores"),
                ("cpu", "nodes"),
                ("cpu", "nodes", "0"),
            ),
            *(("packages", "torch"), ("packages", "a", "b"), ("packages", "a.b"), ("packages",), ("absent",)),
        ]
    ),
)
COUNT_FIELDS = st.one_of(
    st.builds(Count, st.just("metrics"), st.sampled_from(["*", "val/*", "[lv]*", "?oss"])),
    st.builds(Count, st.just("tags"), st.sampled_from(["*", "a*"])),
    st.builds(Count, st.sampled_from(["dataset", "model", "artifact"])),
)
LINK_FIELDS = st.sampled_from([Attribute(name) for name in ("dataset", "model", "artifact")])
LINK_TEXTS = st.sampled_from(["loans", "loans@1", "a*b@2", "weights", "plots/a", "x"])
BOOL_FIELDS = st.sampled_from([Attribute(name) for name in ("pinned", "archived", "deleted")])
TAG_FIELDS = st.builds(Tag, st.sampled_from(["stage", "x y", "a.b", "absent"]))
TEXT_FIELDS = st.sampled_from([Attribute(name) for name in ("name", "project", "group", "notes", "failure", "parent")])
NUMBER_FIELDS = st.sampled_from([Attribute("attempts"), Attribute("duration")])
TIME_FIELDS = st.sampled_from([Attribute("started_at"), Attribute("ended_at")])
FIELDS = st.one_of(
    *(PARAM_FIELDS, METRIC_FIELDS, TAG_FIELDS, TEXT_FIELDS, NUMBER_FIELDS, TIME_FIELDS, AT_FIELDS),
    *(ENVIRONMENT_FIELDS, COUNT_FIELDS, LINK_FIELDS, BOOL_FIELDS),
)
COMPARISONS = st.sampled_from(["=", "<", "<=", ">", ">="])
PATTERNS = st.lists(
    st.sampled_from(["%", "_", "a", "A", "b", "\\%", "\\_", "\\\\", "[", "*", "?", "é", "ß", "\\"]), max_size=5
).map("".join)


GLOBS = st.lists(
    st.sampled_from(["*", "?", "a", "A", "[a-c]", "[!a]", "[]]", "[^é-ü]", "[", "]", "[z-a]", "%", "é", "\\", "@"]),
    max_size=5,
).map("".join)


def comparisons(field: Field, literal: Any, comparison: Any) -> Compare:
    has_no_order = isinstance(literal, bool) or literal != literal
    return Compare(field, "=" if has_no_order else comparison, literal)


ATOMS = st.one_of(
    st.builds(comparisons, PARAM_FIELDS, LITERALS, COMPARISONS),
    st.builds(comparisons, st.one_of(METRIC_FIELDS, NUMBER_FIELDS), NUMBERS, COMPARISONS),
    st.builds(comparisons, st.one_of(TAG_FIELDS, TEXT_FIELDS), TEXTS, COMPARISONS),
    st.builds(OneOf, PARAM_FIELDS, st.lists(LITERALS, min_size=1, max_size=4).map(tuple)),
    st.builds(comparisons, st.one_of(AT_FIELDS, COUNT_FIELDS), NUMBERS, COMPARISONS),
    st.builds(comparisons, ENVIRONMENT_FIELDS, LITERALS, COMPARISONS),
    st.builds(comparisons, BOOL_FIELDS, st.booleans(), COMPARISONS),
    st.builds(Compare, LINK_FIELDS, st.just("="), LINK_TEXTS),
    st.builds(OneOf, LINK_FIELDS, st.lists(LINK_TEXTS, min_size=1, max_size=2).map(tuple)),
    st.builds(OneOf, ENVIRONMENT_FIELDS, st.lists(LITERALS, min_size=1, max_size=4).map(tuple)),
    st.builds(Glob, st.one_of(PARAM_FIELDS, TAG_FIELDS, TEXT_FIELDS, LINK_FIELDS, ENVIRONMENT_FIELDS), GLOBS),
    st.builds(OneOf, METRIC_FIELDS, st.lists(NUMBERS, min_size=1, max_size=3).map(tuple)),
    st.builds(OneOf, st.just(Attribute("status")), st.just(("failed", "pruned"))),
    st.builds(HasValue, FIELDS, st.just(True)),
    st.builds(Like, st.one_of(PARAM_FIELDS, TAG_FIELDS, TEXT_FIELDS), PATTERNS, st.booleans()),
    st.builds(Contains, st.one_of(PARAM_FIELDS, TAG_FIELDS, TEXT_FIELDS), TEXTS),
)


def difference(atom: Any) -> Condition:
    """Return what `!=`, NOT IN, NOT LIKE and NOT CONTAINS mean."""
    if isinstance(atom, HasValue):
        return atom
    inner = Compare(atom.field, "=", atom.value) if isinstance(atom, Compare) else atom
    return All((HasValue(atom.field), Not(inner)))


CONDITIONS = st.recursive(
    st.one_of(ATOMS, ATOMS.map(difference)),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
ORDERS = st.lists(
    st.builds(
        Order,
        st.one_of(
            *(METRIC_FIELDS, PARAM_FIELDS, TAG_FIELDS, TEXT_FIELDS, AT_FIELDS, ENVIRONMENT_FIELDS, COUNT_FIELDS),
            *(LINK_FIELDS, BOOL_FIELDS),
        ),
        st.booleans(),
    ),
    max_size=2,
)


def written(what: Any) -> str:
    """Return the text of a condition, a field or a literal, as a user would write it."""
    match what:
        case Metric(name, statistic):
            return f"metrics.{quoted(name)}.{statistic}"
        case Param(keys, is_exact):
            return "params." + (".".join(map(quoted, keys)) if is_exact else ".".join(keys))
        case Tag(name):
            return f"tags.{quoted(name)}"
        case At(name, step):
            return f"metrics.{quoted(name)}@{step}"
        case Environment(keys):
            return ".".join(["environment", *map(quoted, keys)])
        case Count(kind, pattern):
            return f"count({kind}.{pattern})" if kind in ("metrics", "tags") else f"count({kind})"
        case Attribute(name):
            return name
        case Glob(field, pattern):
            return f"{written(field)} GLOB {written(pattern)}"
        case Compare(field, comparison, value):
            return f"{written(field)} {comparison} {written(value)}"
        case OneOf(field, values):
            return f"{written(field)} IN ({', '.join(map(written, values))})"
        case Like(field, pattern, ignore_case):
            return f"{written(field)} {'ILIKE' if ignore_case else 'LIKE'} {written(pattern)}"
        case Contains(field, text):
            return f"{written(field)} CONTAINS {written(text)}"
        case HasValue(field):
            return f"{written(field)} IS NOT NULL"
        case Not(inner):
            return f"NOT ({written(inner)})"
        case All((HasValue(or_below=False), Not(Compare(field, _, value)))):
            return f"{written(field)} != {written(value)}"
        case All((HasValue(or_below=False), Not(inner))):
            return written(inner).replace(f"{written(inner.field)} ", f"{written(inner.field)} NOT ", 1)
        case All(conditions):
            return " AND ".join(f"({written(inner)})" for inner in conditions)
        case AnyOf(conditions):
            return " OR ".join(f"({written(inner)})" for inner in conditions)
        case Order(field, descending):
            return f"{written(field)}{' DESC' if descending else ''}"
        case bool():
            return str(what).lower()
        case str():
            return quoted(what)
        case _:
            return repr(what)


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def make_runs(home: Path, specifications: list[dict[str, Any]]) -> list[RunInfo]:
    infos = []
    for one in specifications:
        run = runstone.start_run(
            project=one["project"],
            name=one["name"],
            group=one["group"],
            notes=one["notes"],
            params=one["params"],
            tags=one["tags"],
            workspace=home,
            environment=False,
        )
        for name, points in one["metrics"].items():
            for step, value in enumerate(points):
                run.log({name: value}, step=step)
        for mark in sorted(one["marks"]):
            run._log.write(mark, value=True)
        for direction, kind, name, version in one["links"]:
            run._log.write(direction, kind=kind, name=name, version=version, hash=None, role=None, source=None)
        for name in sorted(one["artifacts"]):
            run._log.write("artifact", name=name, folder=False, files=[], metadata={})
        if one["environment"] is not None:
            writer = run._log.writer.hex()
            (run.path / f"environment.{writer}.json").write_text(json.dumps(one["environment"]))
        if one["status"] == "failed":
            run.fail(ValueError("a%b"))
            run.finish()
        else:
            run.finish(one["status"])
        infos.append(run.read())
    return infos


@settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example writes runs: shrinking would take minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(
    specifications=st.lists(RUNS, min_size=1, max_size=5),
    conditions=st.lists(CONDITIONS, min_size=6, max_size=12),
    orders=ORDERS.map(tuple),
)
def test_the_index_answers_as_a_plain_evaluation_does(
    specifications: list[dict[str, Any]], conditions: list[Condition], orders: tuple[Order, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".runstone"
        infos = make_runs(home, specifications)
        order_by = ", ".join(map(written, orders))
        assert parse_order(order_by) == orders
        for condition in conditions:
            text = written(condition)
            assert repr(parse_filter(text)) == repr(condition)  # repr: NaN equals no NaN
            expected = sorted((run for run in infos if holds(condition, run)), key=compare_by(orders))
            found = find_runs(home, text, order_by=order_by, archived=None)
            page = page_of_runs(home, text, order_by=order_by, archived=None)
            assert list(page.ids) == [record.id for record in found.records]
            window = page_of_runs(home, text, order_by=order_by, archived=None, offset=1, limit=2)
            assert (window.ids, window.total) == (page.ids[1:3], page.total)
            assert [record.id for record in found.records] == [run.id for run in expected], text
            assert found.total == len(expected)


# --- answers worth naming ---------------------------------------------------------------------------------------------


@pytest.fixture
def names(home: Path) -> Any:
    """Make a few runs; return what finds their names."""
    with runstone.start_run(
        name="plain", params={"lr": 0.1, "opt": {"name": "adam"}, "layers": [64, 32]}, workspace=home, environment=False
    ) as run:
        run.log({"loss": 0.5, "bad": math.nan}, step=0)
        run.log({"loss": 0.25, "bad": math.nan}, step=1)
    with runstone.start_run(
        name="text", params={"lr": "auto", "opt.name": "sgd", "amp": True}, workspace=home, environment=False
    ) as run:
        run.log({"loss": math.inf})
    with runstone.start_run(name="bare", params={"lr": None}, workspace=home, environment=False):
        pass

    def find(filter: str) -> list[str]:
        return sorted(record.name for record in find_runs(home, filter).records)

    return find


def test_a_comparison_never_matches_a_run_without_the_value(names: Any) -> None:
    assert names("metrics.loss > 0") == ["plain", "text"]
    assert names("metrics.loss != 0.25") == ["text"]
    assert names("params.lr != 0.1") == ["text"]
    assert names("params.lr not in (1, 2)") == ["plain", "text"]


def test_an_empty_section_of_the_environment_is_a_value(home: Path) -> None:
    for name, snapshot in (("empty", {"cpu": {}}), ("full", {"cpu": {"cores": 2}})):
        with runstone.start_run(name=name, workspace=home, environment=False) as run:
            (run.path / f"environment.{run._log.writer.hex()}.json").write_text(json.dumps(snapshot))
    assert [record.name for record in find_runs(home, "environment.cpu = '{}'").records] == ["empty"]
    assert [record.name for record in find_runs(home, "", order_by="environment.cpu").records] == ["empty", "full"]


def test_not_is_the_complement(names: Any) -> None:
    assert names("not metrics.loss > 0") == ["bare"]
    assert names("not params.lr = 0.1") == ["bare", "text"]


def test_types_are_kept_apart(names: Any) -> None:
    assert names("params.lr < 1") == ["plain"]
    assert names("params.lr < 'b'") == ["text"]
    assert names("params.amp = 1") == []
    assert names("params.amp = true") == ["text"]
    assert names("params.lr = '0.1'") == []


def test_a_dotted_key_and_a_nested_one_have_one_readable_name(names: Any) -> None:
    assert names("params.opt.name in ('adam', 'sgd')") == ["plain", "text"]
    assert names("params.'opt.name' = 'sgd'") == ["text"]
    assert names("params.'opt'.name is not null") == ["plain"]


def test_a_list_is_found_by_its_json(names: Any) -> None:
    assert names("params.layers = '[64, 32]'") == names("params.layers contains '32'") == ["plain"]


def test_null_matches_what_is_missing_or_null(names: Any) -> None:
    assert names("params.lr is null") == ["bare"]
    assert names("params.opt is not null") == ["plain", "text"]
    assert names("metrics.loss is null") == ["bare"]
    assert names("notes is null") == ["bare", "plain", "text"]


def test_nan_is_found_and_has_no_order(names: Any) -> None:
    assert names("metrics.bad = nan") == ["plain"]
    assert names("metrics.bad != 1") == ["plain"]
    assert names("metrics.bad < inf or metrics.bad >= 0") == []
    assert names("metrics.bad.min is null") == ["bare", "plain", "text"]
    assert names("metrics.bad.mean = nan") == []
    assert names("metrics.loss = inf") == ["text"]


def test_hostile_text_inside_quotes_is_only_text(names: Any, home: Path) -> None:
    for text in ("'' OR 1=1 --", "x'; DROP TABLE runs; --", "%' or '1'='1", '"'):
        assert names(f"name = {quoted(text)} or tags.{quoted(text)} = {quoted(text)}") == []
    assert len(find_runs(home)) == 3


def test_patterns_of_many_wildcards_take_bounded_time(home: Path) -> None:
    import time

    with runstone.start_run(params={"text": "a" * 100_000}, workspace=home, environment=False):
        pass
    find_runs(home)
    for pattern in ("%" * 1000, "%a" * 1000 + "b", "a%" * 500 + "_" * 500, "_%" * 1000 + "c", "(a+)+$"):
        began = time.process_time()
        find_runs(home, f"params.text like '{pattern}'")
        find_runs(home, f"params.text ilike '{pattern}'")
        find_runs(home, f"params.text glob '{pattern.replace('%', '*').replace('_', '[!b]')}'")
        assert time.process_time() - began < 1.0


def test_a_filter_reaches_the_database_as_bound_parameters_only(names: Any, home: Path) -> None:
    from runstone.index.store import Index

    filter = (
        "metrics.\"m'--\".max > 7654321 and (params.'k;--' in ('v--', 7654322) or tags.t = 'z--') and name like 'p--%' "
        "and environment.'e--' glob 'g--*' and dataset:d-- and count(params.c--*) > 7654323 "
        "and metrics.'a--'@7654324 < 1"
    )
    statements: list[str] = []
    with Index(home) as index:
        index.find(EVERY_RUN)  # makes the tables
    with Index(home) as index:
        index._connect().set_trace_callback(statements.append)
        index.find(parse_filter(filter), orders=parse_order("params.'k;--', metrics.'m--', environment.'o--'"))
    assert statements
    # What is traced has the bound values put in as literals: between quotes they are text, and nothing but text.
    for statement in statements:
        assert "--" not in re.sub(r"'(?:[^']|'')*'", "", statement)
