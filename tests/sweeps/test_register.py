"""`sweep register`: the model of the best trial in the registry, in one command."""

from __future__ import annotations

import runstone

from .conftest import Place

SCRIPT = """\
import argparse, pathlib
import runstone
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
x = parser.parse_args().x
with runstone.start_run(environment=False, on_error="raise") as run:
    pathlib.Path(f"model-{run.id}.bin").write_text(str(x))
    run.log_artifact(f"model-{run.id}.bin", name="model.bin")
    run.log({"loss": x * x})
"""


def test_the_best_trial_is_registered_and_can_be_loaded(place: Place) -> None:
    place.script("train.py", SCRIPT)
    place.sweep("run", place.config(trials=4))
    best = place.record.best
    assert best is not None
    printed = place.sweep("register", "toy", "credit-risk")
    assert f"registered credit-risk@1.0.0 from trial {best.number}" in printed
    loaded = runstone.load_model("credit-risk", workspace=place.home)
    assert loaded.native.read_text() == str(best.params["x"])
    assert loaded.version.tags == {"sweep": place.folder.id, "trial": str(best.number)}
    assert loaded.manifest.run is not None
    assert loaded.manifest.run["id"] == best.run_id
    other = next(number for number in place.record.trials if number != best.number)
    assert "registered credit-risk@1.1.0" in place.sweep("register", "toy", "credit-risk", "--trial", str(other))


def test_what_cannot_be_registered_is_said_in_one_line(place: Place) -> None:
    place.sweep("run", place.config(trials=2))
    assert "has no artifact; it has none" in place.sweep("register", "toy", "m", code=1)
    assert "no artifact 'x'" in place.sweep("register", "toy", "m", "--artifact", "x", code=1)
    assert "has no trial 9" in place.sweep("register", "toy", "m", "--trial", "9", code=1)
