"""The search of `benchmarks.queries` with MLflow on SQLite. Runs in MLflow's environment, which has no Runstone.

MLflow makes its own tables; the runs are put into them directly, which is faster than logging them one by one, and
the same rows. Prints JSON: the version, the runs found, and the seconds of each search.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path


def main(runs: Path, folder: Path, filter: str, order_by: str, rounds: int) -> None:
    """Fill a store with the runs of a file of JSON lines, and search it."""
    import mlflow
    from mlflow.tracking import MlflowClient

    database = folder / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.create_experiment("bench")
    fill(database, experiment, runs)
    seconds = []
    for _ in range(rounds + 1):  # the first one compiles its statements
        start = time.perf_counter()
        found = client.search_runs([experiment], filter, order_by=[order_by], max_results=50)
        seconds.append(time.perf_counter() - start)
    names = [run.data.tags["mlflow.runName"] for run in found]
    print(json.dumps({"version": mlflow.__version__, "names": names, "seconds": seconds[1:], "first_s": seconds[0]}))


def fill(database: Path, experiment: str, runs: Path) -> None:
    """Put runs into the tables of a store."""
    connection = sqlite3.connect(database)
    with connection, runs.open() as lines:
        for line in lines:
            run = json.loads(line)
            run_id, start = run["id"], int(run["started_at"] * 1000)
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
                "start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
                "VALUES (?, ?, 'LOCAL', '', '', 'bench', 'FINISHED', ?, ?, '', 'active', '', ?)",
                (run_id, run["name"], start, start + 100_000, int(experiment)),
            )
            connection.execute(
                "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.runName', ?, ?)", (run["name"], run_id)
            )
            connection.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [(name, str(value), run_id) for name, value in run["params"].items()],
            )
            rows = [(name, value, start, 100, 0, run_id) for name, value in run["metrics"].items()]
            for table in ("metrics", "latest_metrics"):
                connection.executemany(
                    f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)",
                    rows,
                )
    connection.execute("ANALYZE")
    connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
