"""`sweep check`, `sweep init` and `sweep schema`: configs before they are run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runstone_sweeps.spec import SweepSpec

SCHEMA_FILE = ".sweep.schema.json"


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1)
@click.option("--metric", help="The metric, where CONFIG is a script.")
@click.option("--goal", type=click.Choice(["minimize", "maximize"]), help="Its goal, where its name does not say it.")
@click.option("--points", type=click.IntRange(1, 10_000), metavar="N", help="Show the first N points it would try.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Run one shortened trial for real, and forecast the sweep.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, help="Time for the dry run; default 60.")
def check_command(
    config: Path,
    words: tuple[str, ...],
    metric: str | None,
    goal: str | None,
    points: int | None,
    is_dry_run: bool,
    seconds: float,
) -> None:
    """Check CONFIG and say what it would do; every mistake is one line.

    WORDS change the config for this check, as for `sweep run`: `lr=0.1 sampler.name=gp`.
    """
    from runstone_sweeps.config import is_script, load_spec
    from runstone_sweeps.preparing.preview import preview_rows, rehearsal_rows, to_lines, wanted_metrics
    from runstone_sweeps.preparing.rehearsal import rehearse
    from runstone_sweeps.results.text import clean
    from runstone_sweeps.study import check_algorithms

    spec = load_spec(config, overrides=words, metric=metric, goal=goal, has_budget=is_script(config))
    check_algorithms(spec)
    first = _proposals(spec, 1)[0]
    rows = [*preview_rows(spec, _plan(spec)), ("a trial", _trial_line(spec, first))]
    click.echo(f"{config.name} is right")
    for line in to_lines(rows):
        click.echo(line)
    if points:
        click.echo()
        for number, point in enumerate(_proposals(spec, points)):
            click.echo(f"  {number}  {json.dumps(point, ensure_ascii=False)}")
    if not is_dry_run:
        return
    click.echo()
    shown = rehearse(spec, first, limit_s=seconds)
    for line in to_lines(rehearsal_rows(spec, shown, limit_s=seconds)):
        click.echo(line)
    is_lacking = any(name not in shown.logged for name in wanted_metrics(spec))
    if is_lacking or (shown.code != 0 and not shown.is_cut):
        for line in shown.console:
            click.echo(f"  | {clean(line)}")
        sys.exit(1)


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file instead of the terminal.")
def schema_command(output: Path | None) -> None:
    """Print the JSON Schema of a config, with which editors complete and check it."""
    text = _schema_text()
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


@click.command("init")
@click.argument("file", type=click.Path(path_type=Path), default=Path("sweep.yaml"))
@click.option("--script", help="The script; from the folder of FILE.")
@click.option("--metric", help="The metric, exactly as the script logs it.")
@click.option("--goal", type=click.Choice(["minimize", "maximize"]), help="Its goal.")
@click.option("--trials", type=click.IntRange(1), help="Trials in all; default 40.")
@click.option("--parallel", type=click.IntRange(1, 1024), help="Trials at once; default 1.")
@click.option("--yes", "is_sure", is_flag=True, help="Ask nothing; take what was found.")
@click.option("--force", "may_overwrite", is_flag=True, help="Write over FILE if it is there.")
@click.option("--schema/--no-schema", "with_schema", default=True, help=f"Write {SCHEMA_FILE} beside it for editors.")
def init_command(
    file: Path,
    script: str | None,
    metric: str | None,
    goal: str | None,
    trials: int | None,
    parallel: int | None,
    is_sure: bool,
    may_overwrite: bool,
    with_schema: bool,
) -> None:
    """Write a first config FILE for a script: its options are found in its source, and ranges proposed for them."""
    from runstone_sweeps.config.guesses import guess_goal
    from runstone_sweeps.preparing.detect import detect
    from runstone_sweeps.preparing.initial import choose_metric, propose_parameters, write_config

    if file.exists() and not may_overwrite:
        raise click.ClickException(f"{file} is there already; --force writes over it")
    folder = file.parent
    script = script or _ask("Script", _only_script(folder), is_sure, "--script")
    if not (folder / script).is_file():
        raise click.ClickException(f"there is no file {script!r} in {folder.absolute()}")
    facts = detect(folder / script)
    metric = metric or _ask("Metric, as the script logs it", choose_metric(facts.metrics), is_sure, "--metric")
    goal = goal or guess_goal(metric) or _ask("Goal (minimize or maximize)", None, is_sure, "--goal")
    if goal not in ("minimize", "maximize"):
        raise click.ClickException(f"the goal is minimize or maximize, not {goal!r}")
    proposals = propose_parameters(facts.options)
    if not is_sure:
        kept = []
        for proposal in proposals:
            question = f"Search {proposal.name}: {proposal.body}"
            if not proposal.is_sure or click.confirm(question, default=True, err=True):
                kept.append(proposal)
        proposals = kept
        trials = trials or click.prompt("Trials", default=40, type=click.IntRange(1), err=True)
        parallel = parallel or click.prompt("At once", default=1, type=click.IntRange(1, 1024), err=True)
    text = write_config(
        facts,
        proposals,
        script=script,
        metric=metric,
        goal=goal,
        trials=trials or 40,
        parallel=parallel or 1,
        schema=SCHEMA_FILE if with_schema else None,
    )
    file.write_text(text, encoding="utf-8")
    if with_schema:
        (folder / SCHEMA_FILE).write_text(_schema_text(), encoding="utf-8")
    click.echo(f"{file} is written; next: sweep check {file} --dry-run")


def _ask(question: str, found: str | None, is_sure: bool, option: str) -> str:
    """Return an answer, or what was found where nothing is to be asked."""
    if not is_sure:
        return str(click.prompt(question, default=found, err=True))
    if found is None:
        raise click.ClickException(f"{question.lower()}: nothing was found; give {option}")
    return found


def _only_script(folder: Path) -> str | None:
    """Return `train.py`, or the only script of a folder."""
    scripts = sorted(path.name for path in folder.glob("*.py") if not path.name.startswith(("_", "test", "conftest")))
    if "train.py" in scripts:
        return "train.py"
    return scripts[0] if len(scripts) == 1 else None


def _schema_text() -> str:
    from runstone_sweeps.config.schema import build_schema

    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


def _proposals(spec: SweepSpec, count: int) -> list[dict[str, Any]]:
    """Return the points that a new sweep would try first, as far as they do not depend on results."""
    from runstone_sweeps.record import SweepRecord
    from runstone_sweeps.study import Search

    limit = min(count, spec.trials or count)
    search = Search(spec, seed=spec.seed or 0, record=SweepRecord())
    fixed: list[Mapping[str, Any] | None] = [*spec.points, *[None] * limit]
    return [search.ask(number, fixed=fixed[number]).params for number in range(limit)]


def _plan(spec: SweepSpec) -> Any:
    from runstone_sweeps.environment import process_environment
    from runstone_sweeps.executors import warm

    return warm.plan(
        start=spec.start,
        preload=spec.preload,
        script=spec.script,
        command=spec.command,
        function=spec.function,
        working_dir=spec.working_dir,
        environment={**process_environment(), **spec.env},
    )


def _trial_line(spec: SweepSpec, point: Mapping[str, Any]) -> str:
    import shlex

    from runstone_sweeps.results.text import clean
    from runstone_sweeps.spec.command import build_command

    words = build_command(
        point,
        script=spec.script,
        command=spec.command,
        function=spec.function,
        metric=spec.metrics[0].name,
        environment={},
        json_file=Path("params.json"),
    )
    return clean(shlex.join(words))
