"""Rules that must hold before a version is promoted: one file, the same answer on a laptop, in CI and on the page.

```yaml
# gates.yaml
gates:
  production:                        # by stage; "*" holds for every stage
    - metric: {name: val/auc, min: 0.9}
    - better_than: {version: production, metric: val/auc, goal: maximize, margin: 0.005, confidence: 0.95}
    - signature: {compatible_with: production}
    - code: clean
    - data: not_revoked
    - approval: approved
    - approver: not_author
    - evaluations: [fairness, holdout]
    - tags: {reviewed: "yes"}
```
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runstone.errors import InvalidConfig
from runstone.ledger import user_name
from runstone.models.better import Check, Side, better_words, check_better
from runstone.models.history import ModelNotFound, ModelState, ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.signature import compare
from runstone.models.yamlfile import read_yaml

ANY_STAGE = "*"


class Evidence(Protocol):
    """What the gates ask for beside the version itself."""

    def manifest(self, version: ModelVersion) -> Manifest:
        """Return what a version consists of."""

    def metrics(self, version: ModelVersion) -> Mapping[str, float]:
        """Return a version's metrics by name: from when it was registered, and from runs that evaluated it since."""

    def over_seeds(self, version: ModelVersion, metric: str) -> Sequence[float]:
        """Return the last value of a metric in a version's run, and in those that differ from it by the seed alone."""

    def artifacts(self, version: ModelVersion) -> Sequence[str]:
        """Return the names of the artifacts of a version's run."""

    def revoked(self, version: ModelVersion) -> Sequence[str]:
        """Return what was revoked of all that a version descends from, each with its reason."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule, as the file has it."""

    kind: str
    options: Any


def read_gates(path: Path) -> dict[str, list[Gate]]:
    """Read a file of gates.

    Returns:
        The gates by stage.

    Raises:
        InvalidConfig: it has mistakes; each is one line of the message.
        OSError: it cannot be read.
    """
    return parse_gates(read_yaml(path), name=path.name)


def parse_gates(raw: Any, *, name: str = "gates") -> dict[str, list[Gate]]:
    """Check gates that are already a dict; as `read_gates`."""
    stages = raw.get("gates") if isinstance(raw, dict) else None
    if not isinstance(stages, dict) or set(raw) != {"gates"}:
        raise InvalidConfig(
            f"{name}: must be a mapping with the key gates, and under it a list of gates for each stage"
        )
    mistakes: list[str] = []
    found: dict[str, list[Gate]] = {}
    for stage, entries in stages.items():
        where = f"{name}: gates.{stage}"
        if not isinstance(entries, list):
            mistakes.append(f"{where}: must be a list of gates")
            continue
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or len(entry) != 1:
                mistakes.append(f"{where}.{index}: must be one gate, such as `code: clean`")
                continue
            ((kind, options),) = entry.items()
            problem = _KINDS[kind].problem(options) if kind in _KINDS else f"there is no such gate; there is {_KNOWN}"
            if problem:
                mistakes.append(f"{where}.{index}.{kind}: {problem}")
            found.setdefault(str(stage), []).append(Gate(str(kind), options))
        found.setdefault(str(stage), [])
    if mistakes:
        raise InvalidConfig("\n".join(mistakes))
    return found


def check_gates(
    gates: Mapping[str, Sequence[Gate]],
    state: ModelState,
    version: ModelVersion,
    stage: str,
    evidence: Evidence,
    *,
    approver: str | None = None,
) -> list[Check]:
    """Hold a version against the gates of a stage.

    Args:
        gates: By stage, as `read_gates` gives them.
        state: The model.
        version: What is to be promoted.
        stage: Where to.
        evidence: Answers what the gates ask.
        approver: Who promotes; default: who runs this.

    Raises:
        InvalidConfig: the gates say nothing of this stage, but name stages that the model does not have.
    """
    strange = sorted(gates.keys() - {ANY_STAGE, *state.stages})
    if strange and not gates.keys() & {ANY_STAGE, stage}:
        raise InvalidConfig(
            f"gates.{strange[0]}: model {state.name!r} has no such stage, and there are no gates for {stage!r}; "
            f"its stages are {', '.join(state.stages)}"
        )
    case = _Case(state, version, stage, evidence, approver or user_name())
    return [_KINDS[gate.kind].check(case, gate.options) for gate in (*gates.get(ANY_STAGE, ()), *gates.get(stage, ()))]


def to_record(checks: Sequence[Check]) -> dict[str, Any]:
    """Return checks as an event keeps them."""
    return {
        "passed": all(check.is_passed for check in checks),
        "checks": [{"gate": check.gate, "passed": check.is_passed, "detail": check.detail} for check in checks],
    }


@dataclass(frozen=True, slots=True)
class _Case:
    state: ModelState
    version: ModelVersion
    stage: str
    evidence: Evidence
    approver: str

    @property
    def manifest(self) -> Manifest:
        return self.evidence.manifest(self.version)

    def other(self, selector: str) -> ModelVersion | Check:
        """Return the version to compare with; where there is none, what that means."""
        others = [version for version in self.state.usable() if version.version != self.version.version]
        try:
            found = self.state.find(selector)
        except ModelNotFound as error:
            is_first = not others or selector in self.state.stages
            return Check("", is_first, f"there is no other version in {selector}" if is_first else str(error))
        if found.version != self.version.version:
            return found
        # To be the champion by an alias before the gate was passed would pass the gate.
        return Check("", selector in self.state.stages or not others, f"{selector} is this very version")


@dataclass(frozen=True, slots=True)
class _Kind:
    problem: Callable[[Any], str | None]
    check: Callable[[_Case, Any], Check]


def _check_metric(case: _Case, options: Mapping[str, Any]) -> Check:
    name, low, high = options["name"], options.get("min"), options.get("max")
    bounds = [f"at least {_shown(low)}"] if low is not None else []
    bounds += [f"at most {_shown(high)}"] if high is not None else []
    gate = f"{name} is {' and '.join(bounds)}"
    value = case.evidence.metrics(case.version).get(name)
    if value is None:
        return Check(gate, False, f"the run of {case.version} has no metric {name!r}")
    is_kept = (low is None or value >= low) and (high is None or value <= high)
    return Check(gate, is_kept, f"it is {_shown(value)}")


def _check_better(case: _Case, options: Mapping[str, Any]) -> Check:
    selector = str(options.get("version", case.stage))
    gate = better_words(options, selector)
    champion = case.other(selector)
    if isinstance(champion, Check):
        return Check(gate, champion.is_passed, champion.detail)
    ours, theirs = (
        Side(str(one), f"the run of {one}", case.evidence.over_seeds(one, options["metric"]))
        for one in (case.version, champion)
    )
    return check_better(gate, options, ours, theirs)


def _check_signature(case: _Case, options: Any) -> Check:
    selector = str(options.get("compatible_with", case.stage)) if isinstance(options, dict) else case.stage
    gate = f"the signature goes with that of {selector}"
    if case.manifest.signature is None:
        return Check(gate, False, f"{case.version} has no signature; log it with example=")
    champion = case.other(selector)
    if isinstance(champion, Check):
        return Check(gate, champion.is_passed, champion.detail)
    found = compare(case.evidence.manifest(champion).signature, case.manifest.signature)
    breaking = [difference.what for difference in found if difference.is_breaking]
    return Check(gate, not breaking, "; ".join(breaking) or f"nothing breaks those who use {champion}")


def _check_code(case: _Case, _options: Any) -> Check:
    gate = "the code is a commit without changes"
    code = case.manifest.recipe.get("code")
    if not code:
        return Check(gate, False, "no commit is known: the run was not in a git checkout, or recorded no environment")
    if code.get("is_dirty"):
        return Check(gate, False, f"there were uncommitted changes on top of {code['commit'][:10]}")
    return Check(gate, True, f"it is {code['commit'][:10]}")


def _check_data(case: _Case, _options: Any) -> Check:
    found = case.evidence.revoked(case.version)
    return Check("nothing that it descends from was revoked", not found, "; ".join(found) or "nothing was revoked")


def _check_approval(case: _Case, _options: Any) -> Check:
    approval = case.version.approval
    by = f" by {approval.by}" if approval.by else ""
    why = f": {approval.reason}" if approval.reason else ""
    return Check("it is approved", approval.state == "approved", f"it is {approval.state}{by}{why}")


def _check_approver(case: _Case, _options: Any) -> Check:
    approval = case.version.approval
    who = approval.by if approval.state == "approved" and approval.by else case.approver
    is_other = who != case.version.author
    detail = f"{case.version.author} registered it, and {who} approves it"
    return Check("who approves it is not who made it", is_other, detail)


def _check_evaluations(case: _Case, options: Sequence[str]) -> Check:
    there = [*case.evidence.metrics(case.version), *case.evidence.artifacts(case.version)]
    missing = [name for name in options if not any(one == name or one.startswith(f"{name}/") for one in there)]
    gate = f"it was evaluated: {', '.join(options)}"
    return Check(gate, not missing, f"{', '.join(missing)} is missing" if missing else "all are there")


def _check_tags(case: _Case, options: Mapping[str, Any]) -> Check:
    wrong = [
        f"{name} is {case.version.tags.get(name)!r}"
        for name, value in options.items()
        if case.version.tags.get(name) != str(value)
    ]
    gate = f"it has the tags {', '.join(f'{name}={value}' for name, value in options.items())}"
    return Check(gate, not wrong, "; ".join(wrong) or "it has")


def _keys(required: set[str], optional: set[str]) -> Callable[[Any], str | None]:
    def problem(options: Any) -> str | None:
        if not isinstance(options, dict):
            return f"must be a mapping with {', '.join(sorted(required | optional))}"
        if missing := required - options.keys():
            return f"{', '.join(sorted(missing))} is missing"
        if unknown := options.keys() - required - optional:
            known = ", ".join(sorted(required | optional))
            return f"{', '.join(sorted(map(str, unknown)))} is not a key here; there is {known}"
        return None

    return problem


def _metric_problem(options: Any) -> str | None:
    problem = _keys({"name"}, {"min", "max"})(options)
    if problem:
        return problem
    if not isinstance(options["name"], str):
        return "name must be the name of a metric"
    bounds = [options[key] for key in ("min", "max") if key in options]
    if not bounds or not all(_is_number(bound) for bound in bounds):
        return "needs a number as min or max"
    return None if len(bounds) < 2 or bounds[0] <= bounds[1] else "min is above max"


def _better_problem(options: Any) -> str | None:
    problem = _keys({"metric", "goal"}, {"version", "margin", "confidence"})(options)
    if problem:
        return problem
    if not isinstance(options["metric"], str):
        return "metric must be the name of a metric"
    if options["goal"] not in ("maximize", "minimize"):
        return f"goal is {options['goal']!r}; it must be maximize or minimize"
    if not _is_number(options.get("margin", 0)):
        return "margin must be a number"
    if options.get("margin", 0) < 0:
        return "margin is below 0: worse would count as better"
    confidence = options.get("confidence")
    if confidence is not None and not (_is_number(confidence) and 0.5 <= confidence < 1):
        return f"confidence is {confidence!r}; it must be at least 0.5 and below 1"
    return None


def _signature_problem(options: Any) -> str | None:
    return None if options == "compatible" else _keys({"compatible_with"}, set())(options)


def _word(word: str) -> Callable[[Any], str | None]:
    return lambda options: None if options == word else f"is {options!r}; the only word here is {word}"


def _names_problem(options: Any) -> str | None:
    is_right = isinstance(options, list) and options and all(isinstance(name, str) for name in options)
    return None if is_right else "must be a list of metrics or artifacts"


def _tags_problem(options: Any) -> str | None:
    if not isinstance(options, dict) or not options:
        return "must be a mapping from tags to values"
    for name, value in options.items():
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            return f"the value of {name!s:.80} must be text; YAML takes it for {value!r:.40}: quote it"
    return None


def _shown(value: float) -> str:
    """Return a number with as many digits as it takes to tell it from its bound."""
    return f"{value:.12g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_KINDS = {
    "metric": _Kind(_metric_problem, _check_metric),
    "better_than": _Kind(_better_problem, _check_better),
    "signature": _Kind(_signature_problem, _check_signature),
    "code": _Kind(_word("clean"), _check_code),
    "data": _Kind(_word("not_revoked"), _check_data),
    "approval": _Kind(_word("approved"), _check_approval),
    "approver": _Kind(_word("not_author"), _check_approver),
    "evaluations": _Kind(_names_problem, _check_evaluations),
    "tags": _Kind(_tags_problem, _check_tags),
}
_KNOWN = ", ".join(_KINDS)
