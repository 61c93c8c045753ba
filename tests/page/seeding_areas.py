"""A workspace with everything beside runs: sweeps, data, models, lineage, reports, alerts. Small, always the same."""

from __future__ import annotations

import random
from pathlib import Path

import runstone
from runstone.reports import Reports
from tests.page.seeding import HOSTILE
from tests.sweeps.made import CONFIG, searched, write

MADE = "0" * 31 + "1"
TWO_GOALS = "0" * 31 + "2"
TRIALS = 120
MODEL = "credit/risk"
DATA = "loans"
GATES = """\
gates:
  production:
    - metric: {name: val/auc, min: 0.85}
    - approval: approved
"""
REPORT = """# What was found

Income *matters most*. <script>document.title = 'broken'</script>

```runs
filter: project = 'credit'
columns: [name, status, metrics.val/auc]
```

```plot
filter: project = 'credit'
metric: loss
```
"""


def seed_areas(path: Path) -> None:
    """Make all of it."""
    runstone.ensure_workspace(path)
    seed_sweep(path, MADE, TRIALS)
    seed_sweep(path, TWO_GOALS, 40, goals=2)
    seed_catalog(path)
    seed_checks(path)
    Reports(path).create("findings", REPORT)


def seed_sweep(path: Path, sweep_id: str, trials: int, *, goals: int = 1) -> None:
    """Make the record of a sweep, as its coordinator writes it."""
    config = CONFIG | {"trials": trials}
    if goals > 1:
        both = [{"name": "loss", "goal": "minimize"}, {"name": "speed", "goal": "maximize"}]
        config = {key: value for key, value in config.items() if key != "metric"} | {
            "name": "two goals",
            "metrics": both,
        }
    events = searched(trials, config)
    events[0]["sweep_id"] = sweep_id
    write(path / "sweeps" / sweep_id, events)


def seed_catalog(path: Path) -> None:
    """Make data, runs that used it, versions of a model, where they stand, and what went wrong with one."""
    (path / "gates.yaml").write_text(GATES)
    workspace = runstone.open_workspace(path)
    source = path.parent / "loans"
    source.mkdir()
    for version, shift in ((1, 0), (2, 5)):
        rng = random.Random(version)
        rows = [
            f"{40 + shift + rng.gauss(0, 9):.2f},{rng.choice(['rent', 'own'])},{rng.random():.3f}" for _ in range(400)
        ]
        (source / "train.csv").write_text("income,housing,risk\n" + "\n".join(rows) + "\n")
        (source / "README.md").write_text(f"Loans, version {version}\n")
        if version == 2:
            (source / "extra.csv").write_text("income,housing,risk\n50.0,own,0.5\n")
        workspace.datasets.add(source, name=DATA, notes=f"labels of round {version}", profile=True)
    for k, auc in enumerate((0.81, 0.88, 0.91)):
        with runstone.start_run(
            project="credit",
            name=f"fit-{k}",
            params={"lr": 10.0 ** -(k + 1), "seed": k},
            workspace=path,
            environment=False,
        ) as run:
            run.use_dataset(f"{DATA}@{min(k + 1, 2)}", role="train")
            for step in range(30):
                run.log({"loss": 1 / (step + 1) + k * 0.05, "val/auc": auc - 0.2 / (step + 1)}, step=step)
            run.log({"val/auc": auc}, step=30)
            weights = path.parent / f"weights-{k}.bin"
            weights.write_bytes(bytes(range(k, k + 100)) * 30)
            run.log_model(str(weights), name=MODEL)
            if k == 0:
                run.alert("Loss rose", f"from 0.1 to 0.4 {HOSTILE}", level="warning")
    model = workspace.models.get(MODEL)
    first, second, _third = (str(one.version) for one in reversed(model.versions()))
    model.judge(second, "approved", reason="figures hold")
    model.set_stage(second, "production", reason="first release")
    model.set_alias("champion", second)
    model.set_notes("Default within a year.", version=second)
    model.record_deployment(second, "eu/scoring", url="https://scoring.example", replicas=3)
    model.open_incident(second, kind="drift", summary="income shifted", report_hash=None)
    model.judge(first, "rejected", reason="too weak")


def seed_checks(path: Path) -> None:
    """Let what comes in be checked twice: once as it was, once with other incomes and a new word."""
    from runstone.monitoring import check

    rng = random.Random(9)
    rows = [f"{60 + rng.gauss(0, 9):.2f},{rng.choice(['rent', 'own', 'boat'])},{rng.random():.3f}" for _ in range(500)]
    today = path.parent / "today.csv"
    today.write_text("income,housing,risk\n" + "\n".join(rows) + "\n")
    for data in (path.parent / "loans" / "train.csv", today):
        check(f"{MODEL}@production", data, workspace=path)
