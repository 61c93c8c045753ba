"""Runs the benchmarks: `python -m benchmarks [--quick] [NAME ...]`."""

from __future__ import annotations

import argparse
import importlib

from benchmarks.measure import machine, versions

NAMES = (
    "import_time",
    "start_finish",
    "log_call",
    "system_metrics",
    "callbacks",
    "scale",
    "sweeps",
    "search",
    "workers",
    "blobs",
    "datasets",
    "queries",
    "comparing",
    "serving",
    "ingest",
    "server_load",
)
# These need other programs, and are started by themselves: `python -m benchmarks.NAME`.
BY_THEMSELVES = ("mlflow_server", "page", "sweep_peers")


def main() -> None:
    """Run those that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What Runstone costs, against a floor.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="only show that they run; the figures mean nothing")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    print(f"{machine()}; {versions('runstone')}")
    for name in options.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main(quick=options.quick)


if __name__ == "__main__":
    main()
