"""What `import runstone` adds to the start of Python."""

from __future__ import annotations

from benchmarks.measure import best_of_processes, show


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    programs = {"python -c pass": ["-c", "pass"], "import runstone": ["-c", "import runstone"]}
    best = best_of_processes(programs, rounds=1 if quick else 30)
    show("Import, whole process", best, floor="python -c pass", unit_s=1e-3, unit="ms")
    print(f"  added by the import: {(best['import runstone'] - best['python -c pass']) * 1000:.1f} ms")
