"""The profile of a version: made when it is registered, or later, and kept with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runstone.errors import InvalidValue, NotFound, RunstoneError
from runstone.models import Manifest, ModelVersion, read_manifest
from runstone.monitoring.configfile import read_watching
from runstone.monitoring.profile import Column, Profile
from runstone.monitoring.profiling import profile_rows, word_of
from runstone.monitoring.tables import Rows, column_of, rows_of

if TYPE_CHECKING:
    from runstone.runinfo import RunInfo
    from runstone.workspace import Workspace

_AUTOMATIC_BYTES = 64 << 20
_HELD_OUT = ("test", "holdout", "validation", "val", "eval", "evaluation")
_PREDICTION = "prediction"


@dataclass(frozen=True, slots=True)
class Reference:
    """Data that a version is compared with later.

    Attributes:
        data: As for `rows_of`: a path, a table, an array.
        labels: The truth: a column of the data, a file, or values.
        predictions: What the model said, likewise.
        ignore: Columns that are no features, such as ids.
        role: What the data was to the model, such as `train` or `test`.
        sample_rows: How many rows of it are kept with the version at most; 0: none. Default: as `monitoring.yaml` says,
            else 5,000.
    """

    data: Any
    labels: Any = None
    predictions: Any = None
    ignore: Sequence[str] = ()
    role: str | None = None
    sample_rows: int | None = None


class NoProfile(NotFound):
    """A version has no profile to compare with."""


def set_profile(
    workspace: Workspace,
    ref: str,
    data: Any,
    *,
    labels: Any = None,
    predictions: Any = None,
    ignore: Sequence[str] = (),
    role: str | None = None,
    sample_rows: int | None = None,
) -> Profile:
    """Make the profile of data and keep it with a version, in place of the one that it had.

    Args:
        workspace: Where the version is.
        ref: The version, such as `credit-risk@2.1.0`.
        data, labels, predictions, ignore, role, sample_rows: As of `Reference`.

    Raises:
        ModelNotFound: there is no such version.
        NotFound, InvalidValue, NoTable: the data cannot be read.
    """
    version = workspace.models.find(ref)
    manifest = read_manifest(version, workspace.blobs)
    profile = profile_reference(Reference(data, labels, predictions, ignore, role), manifest)
    return keep(workspace, version, profile, sample_rows)


def profile_reference(reference: Reference, manifest: Manifest | None) -> Profile:
    """Return the profile of data that is to be a reference; as `set_profile`."""
    rows, label, prediction = joined(reference.data, reference.labels, reference.predictions, "label", _PREDICTION)
    features = _features(manifest, _names(rows), {label, prediction, *reference.ignore})
    source = {"name": rows.name, **({"role": reference.role} if reference.role else {})}
    profile = profile_rows(
        rows, features=features, label=label, prediction=prediction, ignore=reference.ignore, source=source
    )
    if not profile.rows:
        raise InvalidValue(f"{rows.name} has no rows; a reference needs some")
    if profile.performance is not None and reference.role == "train":
        note = "how well the model does on its training data is no baseline, and was left out"
        profile = replace(profile, performance=None, notes=(*profile.notes, note))
    return profile


def joined(
    data: Any, labels: Any, predictions: Any, label_name: str, prediction_name: str
) -> tuple[Rows, str | None, str | None]:
    """Return data with labels and predictions beside it, and the names of their columns.

    Args:
        data: As for `rows_of`.
        labels, predictions: A column of the data, a file (with `:COLUMN`), values, or `None`.
        label_name, prediction_name: Names for those that come from elsewhere.
    """
    rows = rows_of(data)
    names = _names(rows)
    there = set(names)
    found: list[str | None] = []
    for given, name in ((labels, label_name), (predictions, prediction_name)):
        if given is None or (isinstance(given, str) and given in there):
            found.append(given)
            continue
        while name in there:
            name = f"{name}_"
        rows = rows.with_column(name, column_of(given, what=name, beside=names))
        there.add(name)
        found.append(name)
    return rows, found[0], found[1]


def _names(rows: Rows) -> list[str]:
    first = next(rows.batches(), None)
    return list(first.schema.names) if first is not None else list(rows.tables[0].schema().names)


def keep(workspace: Workspace, version: ModelVersion, profile: Profile, sample_rows: int | None = None) -> Profile:
    """Keep a profile with a version, with as many rows of the data in it as may be kept; return what is kept."""
    wanted = sample_rows if sample_rows is not None else read_watching(workspace.path, version.model).sample_rows
    profile = profile.with_rows(wanted)
    blobs = workspace.blobs
    kept = blobs.put_bytes(profile.to_bytes(), "profile.json")
    blobs.sync()  # the event promises the content
    if blobs.remote is not None:
        blobs.push([kept.hash])
    workspace.models.get(version.model).set_profile(str(version.version), kept.hash)
    return profile


def profile_of(workspace: Workspace, version: ModelVersion) -> Profile:
    """Return the profile of a version.

    Raises:
        NoProfile: it has none.
        FormatError: it is damaged, or a newer version wrote it.
    """
    if version.profile_hash is None:
        raise NoProfile(
            f"{version} has no profile to compare with; make one: runstone monitor profile {version} --data FILE"
        )
    return Profile.from_bytes(workspace.blobs.read(version.profile_hash))


# --- at registration ------------------------------------------------------------------------------------------------


def profile_registered(
    workspace: Workspace,
    version: ModelVersion,
    run: RunInfo,
    manifest: Manifest,
    *,
    model: Any = None,
    given: Any = None,
) -> Profile | None:
    """Keep the profile of a version that was just registered.

    Args:
        workspace: Where it is.
        version: The version.
        run: The run that made it.
        manifest: What it consists of.
        model: The model itself: what it says of the data is profiled, too.
        given: The data, or a `Reference`; default: what the run used, with the role `train` if there is such.

    Returns:
        The profile; `None` where there is nothing to make one of.

    Raises:
        RunstoneError, OSError: given data cannot be read.
    """
    sample_rows = None
    if given is not None:
        reference = given if isinstance(given, Reference) else Reference(given)
        sample_rows = reference.sample_rows
        profile = profile_reference(reference, manifest)
        if profile.prediction is None:
            profile = _with_predictions(profile, profile, model, manifest)
    else:
        found = _of_inputs(workspace, run, manifest, model)
        if found is None:
            return None
        profile = found
    return keep(workspace, version, profile, sample_rows)


def _of_inputs(workspace: Workspace, run: RunInfo, manifest: Manifest, model: Any) -> Profile | None:
    links = [link for link in run.inputs if link.kind == "dataset"]
    if not links:
        return None
    roles = {str(link.role or ""): link for link in reversed(links)}
    first = roles.get("train") or links[0]
    profile = _of_dataset(workspace, first, manifest)
    if profile is None:
        return None
    held_out = next((roles[role] for role in _HELD_OUT if role in roles), None)
    seen = _of_dataset(workspace, held_out, manifest) if held_out is not None and held_out is not first else profile
    return _with_predictions(profile, seen or profile, model, manifest)


def _of_dataset(workspace: Workspace, link: Any, manifest: Manifest) -> Profile | None:
    """Return the profile of a version of a dataset: of its rows where they are at hand, else of what was known."""
    try:
        version = workspace.datasets.find(f"{link.name}@{link.version}")
        source = {"name": str(version), "role": link.role, "hash": version.hash}
        if version.size_bytes <= _AUTOMATIC_BYTES:
            try:
                rows = rows_of(version)
                names = _names(rows)
                features = _features(manifest, names, set())
                return profile_rows(rows, features=features, label=_label(names, features), source=source)
            except (RunstoneError, OSError):
                pass  # in memory, or no table: what its own profile says is left
        columns = {name: _of_summary(name, told) for name, told in version.profile.items()}
    except (RunstoneError, OSError):
        return None
    if not columns:
        return None
    features = _features(manifest, list(columns), set())
    note = f"of {version} only the profile is known, not the rows: no domain classifier"
    return Profile(
        rows=max(column.count for column in columns.values()),
        columns=columns,
        features=tuple(features),
        label=_label(list(columns), features),
        source=source,
        notes=(note,),
    )


def _of_summary(name: str, told: Mapping[str, Any]) -> Column:
    """Return a column from what a dataset's profile says of it: quantiles by the hundred, its most frequent values."""
    missing = int(told["nulls"]) + int(told.get("nans", 0))
    count = int(told["count"])
    counts = None
    if told.get("distinct") is not None and len(told.get("top", ())) == told["distinct"]:
        counts = {word_of(value): number for value, number in told["top"]}
    if "quantiles" in told:
        values = sorted(set(told["quantiles"]))
        shares = [sum(one <= value for one in told["quantiles"]) / len(told["quantiles"]) for value in values]
        return Column(
            name, "number", told["type"], count, missing, told["mean"], told["std"], values[0], values[-1],
            tuple(values), (*shares[:-1], 1.0), counts=counts, distinct=told.get("distinct"),
            singles=sum(number == 1 for number in (counts or {}).values()),
        )  # fmt: skip
    is_category = counts is not None and ("length" in told or told["type"] == "bool")
    return Column(
        name, "category" if is_category else "other", told["type"], count, missing,
        counts=counts if is_category else None, distinct=told.get("distinct"),
        singles=sum(number == 1 for number in (counts or {}).values()),
    )  # fmt: skip


def _features(manifest: Manifest | None, names: Sequence[str], others: set[Any]) -> list[str]:
    """Return which columns the model takes: those of its signature, if these are columns."""
    inputs = manifest.signature.inputs if manifest is not None and manifest.signature is not None else None
    if inputs is not None and inputs.kind == "table":
        return [field.name for field in inputs.fields if field.name not in others]
    return [name for name in names if name not in others]


def _label(names: Sequence[str], features: Sequence[str]) -> str | None:
    """Return the one column that is no feature, if it is one."""
    others = [name for name in names if name not in features]
    return others[0] if len(others) == 1 else None


# --- what the model says --------------------------------------------------------------------------------------------


def _with_predictions(profile: Profile, seen: Profile, model: Any, manifest: Manifest) -> Profile:
    """Return a profile with what the model says of rows, and how well that fits, where it can be asked.

    Args:
        profile: The profile.
        seen: Of the rows that the model is asked about: those that it was not trained with, where there are such.
        model: The model; only one of scikit-learn is asked.
        manifest: What it consists of.
    """
    if model is None or manifest.flavour != "sklearn" or not seen.sample:
        return profile
    try:
        said = _predict(model, seen)
        rows = rows_of({name: _column(values) for name, values in seen.sample.items()} | {_PREDICTION: said})
        told = profile_rows(rows, label=seen.label, prediction=_PREDICTION, expected=seen.columns)
    except Exception as error:  # the model is the user's code
        note = f"what the model predicts is not known: {type(error).__name__}: {str(error).splitlines()[0]:.200}"
        return replace(profile, notes=(*profile.notes, note))
    is_training = seen.source.get("role") == "train"
    source = {**profile.source, "performance": seen.source.get("name")}
    return replace(
        profile,
        columns={**profile.columns, _PREDICTION: told.columns[_PREDICTION]},
        prediction=_PREDICTION,
        performance=None if is_training else told.performance,
        source=profile.source if is_training else source,
    )


def _predict(model: Any, profile: Profile) -> Any:
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        table = [[math.nan if value is None else value for value in profile.sample[one]] for one in profile.features]
        import numpy as np  # only here

        return np.asarray(model.predict(np.array(table).T))
    import pandas as pd  # a model that was fitted with a table of pandas

    frame = pd.DataFrame({str(name): profile.sample[str(name)] for name in names})
    return model.predict(frame)


def _column(values: Sequence[Any]) -> Any:
    import pyarrow as pa  # only here

    return pa.array(values)
