"""Semantic versions and references, as semver.org and the documentation say."""

from __future__ import annotations

import itertools
import math
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstone.errors import InvalidName, InvalidValue
from runstone.models.refs import ModelRef, check_alias, parse_time
from runstone.models.semver import SemVer

# semver.org, 11.4
ORDERED = (
    "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 "
    "1.0.0 1.0.1 1.2.0 1.10.0 2.0.0"
).split()
SEMVERS = st.builds(
    SemVer,
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.lists(st.sampled_from(["alpha", "rc", "0", "1", "17", "x-1"]), max_size=3).map(tuple),
)


def test_versions_are_ordered_as_the_standard_orders_them() -> None:
    versions = [SemVer.parse(text) for text in ORDERED]
    for (i, one), (j, other) in itertools.combinations(enumerate(versions), 2):
        assert (one < other) == (i < j)
        assert not other < one
    assert [str(version) for version in sorted(random.Random(1).sample(versions, len(versions)))] == ORDERED


@given(SEMVERS)
def test_a_version_is_read_as_it_is_written(version: SemVer) -> None:
    assert SemVer.parse(str(version)) == version
    assert SemVer.parse(f"v{version}") == version


@given(SEMVERS, st.sampled_from(["major", "minor", "patch"]))
def test_the_next_version_is_a_higher_release(version: SemVer, level: str) -> None:
    following = version.bump(level)  # type: ignore[arg-type]
    assert following > version
    assert not following.is_prerelease


def test_a_prerelease_leads_to_its_release_where_that_is_enough() -> None:
    assert str(SemVer.parse("2.0.0-rc.1").bump("minor")) == "2.0.0"
    assert str(SemVer.parse("2.1.0-rc.1").bump("major")) == "3.0.0"
    assert str(SemVer.parse("2.1.1-rc.1").bump("minor")) == "2.2.0"
    assert str(SemVer.parse("2.1.1").bump("minor")) == "2.2.0"


@pytest.mark.parametrize("text", ["1", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+b", "x", "", "1.2.3\n", "1" * 200])
def test_what_is_no_version_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"write it as 1\.2\.3"):
        SemVer.parse(text)


def test_references_name_a_version_an_alias_a_stage_and_a_time() -> None:
    assert ModelRef.parse("credit-risk") == ModelRef("credit-risk", "latest", None)
    assert ModelRef.parse("credit risk/eu@1.2") == ModelRef("credit risk/eu", "1.2", None)
    assert ModelRef.parse("models:/m@champion") == ModelRef("m", "champion", None)
    at = ModelRef.parse("m@production?as_of=2026-03-01T12:00:00+01:00")
    assert at.as_of == datetime(2026, 3, 1, 11, 0, 0, 999_999, tzinfo=UTC).timestamp()
    assert ModelRef.parse(str(at)) == at
    assert ModelRef.parse(str(at)) == at
    for wrong in ("m@", "@1", ""):
        with pytest.raises(InvalidName):
            ModelRef.parse(wrong)
    with pytest.raises(InvalidValue, match="is not a time"):
        ModelRef.parse("m@production?as_of=yesterday")


def test_a_date_alone_is_what_stood_when_the_day_was_over() -> None:
    assert math.isclose(parse_time("2026-03-01"), datetime(2026, 3, 2, tzinfo=UTC).timestamp(), abs_tol=0.01)
    assert parse_time("2026-03-01") < datetime(2026, 3, 2, tzinfo=UTC).timestamp()
    assert parse_time("2026-03-01T00:00") == datetime(2026, 3, 1, 0, 0, 59, 999_999, tzinfo=UTC).timestamp()
    assert parse_time("2026-03-01 12:30:07 UTC") == parse_time("2026-03-01T13:30:07.999999+01:00")


@pytest.mark.parametrize("alias", ["1", "1.2", "v3", "1.2.3", "latest", "Latest", "production", "", "a b", "-x", "a@b"])
def test_an_alias_that_could_be_taken_for_something_else_is_refused(alias: str) -> None:
    with pytest.raises(InvalidName):
        check_alias(alias, ("none", "production"))
    assert check_alias("champion", ("none", "production")) == "champion"
