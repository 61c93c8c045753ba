"""`sweep check`: what a config would do."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path))
def check_command(config: Path) -> None:
    """Check CONFIG and say what it would do; every mistake is one line."""
    from runstone_sweeps.command import build_command
    from runstone_sweeps.spec import load_spec
    from runstone_sweeps.study import check_algorithms, propose
    from runstone_sweeps.view import clean

    spec = load_spec(config)
    check_algorithms(spec.space, spec.sampler, spec.pruner)
    point = propose(spec.space, spec.metric, spec.sampler, spec.pruner, seed=spec.seed or 0)
    words = build_command(
        point,
        script=spec.script,
        command=spec.command,
        function=spec.function,
        metric=spec.metric.name,
        environment={},
        json_file=Path("params.json"),
    )
    budget = f"{spec.trials} trials" if spec.trials else f"as many trials as fit into {spec.timeout_s:g} s"
    size = f"{spec.space.size:,} points" if spec.space.size else "a continuous space"
    goal = f"{spec.metric.goal} {clean(spec.metric.name)}"
    click.echo(f"{config.name} is right")
    click.echo(f"  search   {len(spec.space.searched)} parameters, {size}; {goal}")
    click.echo(f"  with     sampler {spec.sampler.name}, pruner {spec.pruner.name}; {budget}, {spec.parallel} at once")
    click.echo(f"  in       {spec.working_dir}")
    click.echo(f"  a trial  {clean(shlex.join(words))}")
