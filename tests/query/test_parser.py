"""The filter language: what parses, to what, and what is said of the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstone.errors import InvalidFilter
from runstone.index.conditions import (
    EVERY_RUN,
    All,
    AnyOf,
    At,
    Attribute,
    Compare,
    Contains,
    Count,
    Environment,
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
from runstone.query.parser import parse_field, parse_fields, parse_filter, parse_order


def mistake_in(text: str) -> InvalidFilter:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(text)
    return caught.value


def test_an_empty_filter_holds_for_every_run() -> None:
    assert parse_filter("") == parse_filter(" \n\t") == EVERY_RUN


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("metrics.loss", Metric("loss")),
        ("metrics.val/acc.max", Metric("val/acc", Statistic.MAX)),
        ("metrics.a.b.count", Metric("a.b", Statistic.COUNT)),
        ("metrics.max", Metric("max")),
        ("metrics.max.max", Metric("max", Statistic.MAX)),
        ('metrics."x.max"', Metric("x.max")),
        ('metrics."x.max".min', Metric("x.max", Statistic.MIN)),
        ('metrics.x."max"', Metric("x.max")),
        ("metrics.`val/acc (top 5)`.mean", Metric("val/acc (top 5)", Statistic.MEAN)),
        ("metrics.'it''s'", Metric("it's")),
        ("metrics.8bit", Metric("8bit")),
        ("params.lr", Param(("lr",))),
        ("params.model.layers.0", Param(("model", "layers", "0"))),
        ('params."a.b".c', Param(("a.b", "c"), is_exact=True)),
        ("tags.stage", Tag("stage")),
        ("tags.a.b", Tag("a.b")),
        ("tags.größe", Tag("größe")),
        ("status", Attribute("status")),
        ("duration", Attribute("duration")),
    ],
)
def test_a_field_is_named_by_its_kind_and_its_name(text: str, field: object) -> None:
    assert parse_field(text) == field


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("1", 1),
        ("-2", -2),
        ("+3", 3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("123456789012345678901", 123456789012345678901),
        ("inf", math.inf),
        ("-INF", -math.inf),
        ("true", True),
        ("False", False),
        ("'mlp'", "mlp"),
        ('"mlp"', "mlp"),
        ("'it''s'", "it's"),
        (r"'it\'s'", "it's"),
        (r"'C:\new'", r"C:\new"),
        (r"'a\\'", "a\\"),
        ("''", ""),
    ],
)
def test_a_literal_is_a_number_a_text_or_a_bool(literal: str, value: object) -> None:
    condition = parse_filter(f"params.x = {literal}")
    assert condition == Compare(Param(("x",)), "=", value)  # type: ignore[arg-type]
    assert type(condition.value) is type(value)  # type: ignore[union-attr]


def test_nan_is_a_literal() -> None:
    condition = parse_filter("metrics.loss = nan")
    assert isinstance(condition, Compare)
    assert isinstance(condition.value, float)
    assert math.isnan(condition.value)


def test_and_binds_tighter_than_or_and_not_tighter_than_and() -> None:
    a, b, c = (Compare(Attribute("name"), "=", name) for name in "abc")
    assert parse_filter("name='a' OR name='b' and name='c'") == AnyOf((a, All((b, c))))
    assert parse_filter("(name='a' OR name='b') and name='c'") == All((AnyOf((a, b)), c))
    assert parse_filter("not name='a' and name='b'") == All((Not(a), b))
    assert parse_filter("NOT (name=='a' and Not not name='b')") == Not(All((a, b)))


def test_words_of_the_language_are_read_in_any_case() -> None:
    name = Attribute("name")
    assert parse_filter("name LIKE 'a%'") == parse_filter("name like 'a%'") == Like(name, "a%")
    assert parse_filter("name ilike 'a%'") == Like(name, "a%", ignore_case=True)
    assert parse_filter("name Contains 'a'") == Contains(name, "a")
    assert parse_filter("status In ('failed', \"crashed\")") == OneOf(Attribute("status"), ("failed", "crashed"))


def test_a_negated_comparison_asks_for_a_value_that_is_different() -> None:
    x, name = Param(("x",)), Attribute("name")
    assert parse_filter("params.x != 1") == parse_filter("params.x <> 1")
    assert parse_filter("params.x != 1") == All((HasValue(x), Not(Compare(x, "=", 1))))
    assert parse_filter("params.x not in (1, 'a')") == All((HasValue(x), Not(OneOf(x, (1, "a")))))
    assert parse_filter("name not like 'a%'") == All((HasValue(name), Not(Like(name, "a%"))))


def test_null_is_the_absence_of_a_value() -> None:
    present = HasValue(Param(("x",)), or_below=True)
    assert parse_filter("params.x is null") == parse_filter("params.x = null") == Not(present)
    assert parse_filter("params.x IS NOT NULL") == parse_filter("params.x != none") == present


def test_times_are_utc_unless_they_say_otherwise() -> None:
    started = Attribute("started_at")
    assert parse_filter("started_at >= '2026-11-23'") == Compare(started, ">=", 1795392000.0)
    assert parse_filter("started_at >= '2026-11-23T01:00+01:00'") == Compare(started, ">=", 1795392000.0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5 h", 5400), ("2d", 172800)]
)
def test_durations_are_seconds_or_text_with_units(text: str, seconds: float) -> None:
    assert parse_filter(f"duration > '{text}'") == Compare(Attribute("duration"), ">", seconds)
    assert parse_filter(f"duration > {seconds}") == Compare(Attribute("duration"), ">", seconds)


NOW = 1795392000.0 + 3600 * 15  # 15:00 UTC


@pytest.mark.parametrize(
    ("text", "epoch_s"),
    [
        ("now()", NOW),
        ("NOW() - 7d", NOW - 7 * 86_400),
        ("now()-1h30m", NOW - 5400),
        ("today()", 1795392000.0),
        ("today() - 2 * 1d + 6h", 1795392000.0 - 1.75 * 86_400),
        ("now() - (1d + 2h) / 2", NOW - 13 * 3600),
        ("'2026-11-23' + 1d", 1795392000.0 + 86_400),
        ("2d + '2026-11-23'", 1795392000.0 + 2 * 86_400),
    ],
)
def test_times_can_be_reckoned_with(text: str, epoch_s: float) -> None:
    assert parse_filter(f"started_at > {text}", now=NOW) == Compare(Attribute("started_at"), ">", epoch_s)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("2 * 3 + 4", 10),
        ("2 * (3 + 4)", 14),
        ("-1 - -2", 1),
        ("10 -3", 7),
        ("7 / 2", 3.5),
        ("1d / 1h", 24.0),
        ("(now() - today()) / 1h", 15.0),
    ],
)
def test_numbers_and_durations_can_be_reckoned_with(text: str, value: float) -> None:
    assert parse_filter(f"params.x = {text}", now=NOW) == Compare(Param(("x",)), "=", value)
    assert parse_filter(f"metrics.x < {text}", now=NOW) == Compare(Metric("x"), "<", value)
    assert parse_filter(f"params.x in ({text}, 1)", now=NOW) == OneOf(Param(("x",)), (value, 1))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("metrics.loss@100", At("loss", 100)),
        ("metrics.`val acc`@-3", At("val acc", -3)),
        ('metrics."x.max"@0', At("x.max", 0)),
        ("environment.gpu.0.name", Environment(("gpu", "0", "name"))),
        ('environment.packages."a.b"', Environment(("packages", "a.b"))),
        ("count(metrics.*)", Count("metrics")),
        ("COUNT( metrics.val/* )", Count("metrics", "val/*")),
        ("count(params.opt.'l*r')", Count("params", "opt.l[*]r")),
        ("count(metrics)", Count("metrics")),
        ("count(dataset)", Count("dataset")),
        ("energy", Attribute("energy_j")),
        ("cost", Attribute("energy_cost")),
        ("pinned", Attribute("pinned")),
    ],
)
def test_fields_of_other_kinds_have_names_of_their_own(text: str, field: object) -> None:
    assert parse_field(text) == field
    assert parse_order(f"{text} desc") == (Order(field, descending=True),)  # type: ignore[arg-type]
    assert parse_fields(f"name, {text}, id") == (("name", Attribute("name")), (text, field), ("id", Attribute("id")))


def test_short_forms_say_the_same_as_long_ones() -> None:
    assert parse_filter("pinned") == parse_filter("pinned = true")
    assert parse_filter("not archived and (pinned)") == parse_filter("not archived = true and pinned = true")
    assert parse_filter("dataset:loans@3") == parse_filter("dataset = 'loans@3'")
    assert parse_filter("model:'my net@1.2.0' or dataset:a") == parse_filter("model = 'my net@1.2.0' or dataset = 'a'")
    assert parse_filter("(dataset:loans*)") == parse_filter("dataset glob 'loans*'")
    assert parse_filter("exists(params.x)") == parse_filter("params.x is not null")
    assert parse_filter("exists(params.x*)") == parse_filter("count(params.x*) > 0")
    assert parse_filter("name not glob 'a*'") == All((HasValue(Attribute("name")), Not(Glob(Attribute("name"), "a*"))))


def test_an_order_lists_fields_with_directions() -> None:
    assert parse_order("") == ()
    assert parse_order("metrics.loss.min desc, started_at ASC, params.lr") == (
        Order(Metric("loss", Statistic.MIN), descending=True),
        Order(Attribute("started_at")),
        Order(Param(("lr",))),
    )


def test_a_list_of_fields_keeps_their_text() -> None:
    assert parse_fields("name, metrics.'a,b'.max") == (
        ("name", Attribute("name")),
        ("metrics.'a,b'.max", Metric("a,b", Statistic.MAX)),
    )


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("projet = 'x'", 0, ["unknown field 'projet'", "did you mean 'project'"]),
        ("metric.loss < 1", 0, ["did you mean 'metrics'"]),
        ("name = 'a' and foo = 1", 15, ["unknown field 'foo'", "started_at"]),
        ("status = 'finnished'", 9, ["did you mean 'finished'", "crashed"]),
        ("status = finished", 9, ["text goes in quotes: 'finished'"]),
        ("metrics.loss > 'a'", 15, ["metrics are numbers"]),
        ("metrics.loss like 'a'", 13, ["LIKE works on text", "metrics are numbers"]),
        ("tags.x = 5", 9, ["tags are text", "'5'"]),
        ("name = 5", 7, ["'name' is text"]),
        ("duration > 'soon'", 11, ["no duration", "1h30m"]),
        ("started_at > 'yesterday'", 13, ["no time", "UTC"]),
        ("params.x = 5mb", 11, ["'5mb' is not a number"]),
        ("params.x = 5m3", 11, ["'5m3' is not a number"]),
        ("params.started = now()", 17, ["started_at and ended_at only"]),
        ("started_at > now", 13, ["write now()"]),
        ("started_at > now(1)", 17, ["takes nothing"]),
        ("started_at > 7d", 13, ["no time", "now() - 7d"]),
        ("started_at > now() + now()", 19, ["a time cannot be added to a time"]),
        ("duration > 1h * 1h", 14, ["a duration cannot be multiplied with a duration"]),
        ("params.x = 1 / 0", 13, ["division by zero"]),
        ("params.x = 1e300 * 1e300", 17, ["too large"]),
        ("params.x = 'a' + 1", 15, ["a number cannot be added to text"]),
        ("params.x = (1 + 2", 11, ["not closed"]),
        ("metrics.loss.max@10 > 1", 13, ["leave .max out"]),
        ("params.x@10 > 1", 0, ["only metrics have values at steps"]),
        ("metrics.loss@99999999999999999999 > 1", 12, ["64 bits"]),
        ("count(status) > 1", 6, ["what can be counted are metrics"]),
        ("count(metrics.*", 15, ["expected )"]),
        ("exists params.x", 0, ["a parenthesis must follow 'exists'"]),
        ("metrics.val/* > 1", 12, ["in count(…) and exists(…) only"]),
        ("exists(params.a*", 16, ["expected )"]),
        ("dataset: = 'x'", 7, ["a name must follow the colon"]),
        ("dataset > 'x'", 8, ["'dataset' has no order"]),
        ("pinned = 1", 9, ["true or false"]),
        ("pinned > true", 9, ["have no order"]),
        ("name =~ 'a.*'", 5, ["write 'GLOB'"]),
        ("environment = 1", 0, ["a name must follow 'environment'"]),
        ("params.x = 'abc", 11, ["no closing '"]),
        ("((name = 'x')", 0, ["not closed"]),
        ("name = 'x')", 10, ["never opened"]),
        ("1 < metrics.x", 0, ["the field goes left"]),
        ("metrics.x < 1 < 2", 14, ["join two comparisons with AND"]),
        ("metrics.x in (1, 2", 18, ["expected a comma or )"]),
        ("metrics.x in 1", 13, ["list in parentheses"]),
        ("name = 'x' and", 14, ["expected a field", "the end"]),
        ("name lik 'x'", 5, ["did you mean 'like'"]),
        ("metrics", 0, ["a name must follow 'metrics'"]),
        ("metrics. = 1", 8, ["a name must follow the dot"]),
        ("attributes.name = 'x'", 0, ["without a prefix: name"]),
        ("name = 'a' && name = 'b'", 11, ["write 'AND'"]),
        ("params.x < true", 11, ["have no order"]),
        ("metrics.loss < nan", 15, ["nan has no order"]),
        ("status > 'failed'", 7, ["a status has no order"]),
        ("metrics.x = 1e999", 12, ["too large"]),
        ("metrics.a = metrics.b", 12, ["not with another field"]),
        ("params.x = 1 params.y = 2", 13, ["expected AND, OR or the end"]),
        ("and", 0, ["expected a field, found AND"]),
    ],
)
def test_a_mistake_is_pointed_at_and_explained(text: str, position: int, words: list[str]) -> None:
    error = mistake_in(text)
    assert error.position == position
    assert error.text == text
    message, shown, caret = str(error).split("\n")
    for word in words:
        assert word in message
    assert shown == f"  {text}"
    assert caret.index("^") - 2 == position


def test_the_caret_stands_under_the_place_in_a_long_filter_with_wide_characters() -> None:
    text = "tags.x = '" + "語" * 60 + "' and nme = 'x' and " + "name = 'y' and " * 20 + "name = 'z'"
    _message, shown, caret = str(mistake_in(text)).split("\n")
    before = shown[: shown.index("nme")]
    assert len(shown) < 110
    assert caret.index("^") == sum(2 if c == "語" else 1 for c in before)


def test_control_characters_of_a_filter_are_not_printed() -> None:
    error = mistake_in("name = '\x1b[31m\n' foo")
    assert "\x1b" not in str(error)
    assert str(error).count("\n") == 2


@pytest.mark.parametrize(
    "text",
    [
        "' OR 1=1 --",
        '"; DROP TABLE runs',
        'metrics."a" OR ""=""',
        "name = 'a' -- comment",
        "name = 'a' /* x */",
        "name = 'a\0b'",
        "name = 'a' or \ud800 = 1",
        "(" * 1000 + "name = 'a'" + ")" * 1000,
        "x" * 20_000,
        "name = 'a' or " * 700 + "name = 'b'",
        "params.x in (" + "1," * 3000 + "1)",
    ],
)
def test_hostile_text_is_refused_at_once(text: str) -> None:
    began = time.thread_time()  # of this thread alone, whatever else the machine does
    mistake_in(text)
    assert time.thread_time() - began < 0.2


@pytest.mark.parametrize("text", ["(select 1)", "started_at; drop table runs", "1", "name desc desc", "name,", "rowid"])
def test_an_order_is_fields_only(text: str) -> None:
    with pytest.raises(InvalidFilter):
        parse_order(text)


def test_a_filter_of_the_greatest_length_parses_in_bounded_time() -> None:
    began = time.thread_time()
    parse_filter("not " * 2000 + "name = '" + "x" * 2000 + "'")
    parse_filter(" or ".join(["metrics.loss<1"] * 250))
    parse_filter("(" * 100 + "name = 'a'" + ")" * 100)
    assert time.thread_time() - began < 0.5


def test_what_is_not_text_is_no_filter() -> None:
    with pytest.raises(InvalidFilter, match="must be text"):
        parse_filter(5)  # type: ignore[arg-type]


def position_of_mistake(parse: Callable[[str], object], text: str) -> int:
    try:
        parse(text)
    except InvalidFilter as error:
        return error.position
    return 0


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_mistake(text: str) -> None:
    for parse in (parse_filter, parse_order, parse_field, parse_fields):
        assert 0 <= position_of_mistake(parse, text) <= len(text)


PIECES = [
    "count(",
    "exists(",
    "metrics.*",
    "metrics.x@1",
    "environment.a",
    "dataset",
    ":a@1",
    "glob",
    "now()",
    "7d",
    "+",
    "-",
    "*",
    "/",
    "started_at",
    "pinned",
    "metrics.",
    "params.x",
    "tags.a",
    "'t'",
    '"',
    "(",
    ")",
    "and",
    "or",
    "not",
    "=",
    "<",
    "in",
    "is",
    "null",
    ",",
    "1",
    "like",
    "`",
    ".",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join))
def test_any_words_of_the_language_parse_or_are_a_mistake(text: str) -> None:
    assert 0 <= position_of_mistake(parse_filter, text) <= len(text)
