"""Takes the pictures of docs/screenshots anew: `python -m tests.page.screenshots`. Look at each before it is kept."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import runstone
from runstone.monitoring import checks_of
from tests.page.conftest import CHROMIUM, FLAGS, Server
from tests.page.seeding import seed_usual
from tests.page.seeding_areas import DATA, MADE, MODEL, TWO_GOALS, seed_areas
from tests.page.seeding_criteria import seed_artifacts, seed_media, seed_system

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
LAPTOP, PHONE = (1400, 900), (390, 844)
IN_SIGHT = "document.querySelector('{}').scrollIntoView()"


def main() -> None:
    """Make workspaces, look at them, and write the pictures."""
    os.environ["RUNSTONE_SYSTEM_METRICS"] = "0"
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        full, empty = Path(home, "full", ".runstone"), Path(home, "empty", ".runstone")
        for path in (full, empty):
            path.parent.mkdir()
        ids = _seed(full)
        runstone.ensure_workspace(empty)
        for path, pictures in ((full, _pictures(full, ids)), (empty, _empty())):
            server = Server(path)
            try:
                _take(browser, server, pictures)
            finally:
                server.end()
        browser.close()


def _seed(path: Path) -> dict[str, str]:
    seed_usual(path)
    seed_areas(path)
    seed_media(path)
    seed_artifacts(path)
    seed_system(path, seconds=6)
    return {run.name: run.id for run in runstone.open_workspace(path).runs()}


def _pictures(path: Path, ids: dict[str, str]) -> dict[str, tuple[str, dict[str, Any]]]:
    pinned = f"pins={ids['adam-0']}&baseline={ids['adam-0']}"
    columns = "status,params.optimizer.name,params.lr,metrics.val/acc.max,metrics.val/loss.min"
    runs = f"?project=digits&columns={columns}&sort=-metrics.val/acc.max&{pinned}"
    drift = f"?page=monitoring&item={MODEL}&ref={checks_of(path, MODEL)[-1].id}"
    dark = {"color_scheme": "dark"}
    return {
        "runs": (runs, {}),
        "runs_dark": (runs, dark),
        "groups": ("?project=digits&group=params.optimizer.name&view=both&metrics=val", {}),
        "compare": ("?page=compare&project=digits&differences=0", {}),
        "compare_dark": ("?page=compare&project=digits", dark),
        "media": (f"?page=run&run={ids['net-0']}&tab=media&item=20", {}),
        "media_compare": ("?page=compare&project=vision", {"then": IN_SIGHT.format("section[aria-label=Media]")}),
        "artifacts_dark": (f"?page=run&run={ids['make-1']}&tab=artifacts&item=bundle//config.json", dark),
        "system": (f"?page=run&run={ids['busy']}&tab=system&metrics=loss|cpu/percent|memory/percent|load", {}),
        "run_dark": (f"?page=run&run={ids['adam-0']}", dark),
        "sweep": (f"?page=sweeps&item={MADE}", {"wait_ms": 4_000}),
        "sweep_figures": (f"?page=sweeps&item={MADE}&tab=figures", {"wait_ms": 9_000}),
        "sweep_dark": (f"?page=sweeps&item={TWO_GOALS}&tab=figures", {"wait_ms": 9_000, **dark}),
        "model": (f"?page=models&item={MODEL}&version=1.1.0", {}),
        "dataset_dark": (f"?page=datasets&item={DATA}&tab=profile", dark),
        "lineage": (f"?page=lineage&ref=dataset:{DATA}@2", {}),
        "lineage_dark": (f"?page=lineage&ref=dataset:{DATA}@2", dark),
        "monitoring": ("?page=monitoring", {}),
        "drift": (drift, {}),
        "drift_dark": (drift, {"then": IN_SIGHT.format(".profile"), **dark}),
        "report": ("?page=reports&item=findings", {"wait_ms": 5_000}),
        "phone": (runs, {"viewport": PHONE}),
        "phone_sweep_dark": (f"?page=sweeps&item={MADE}", {"viewport": PHONE, "wait_ms": 4_000, **dark}),
        "phone_compare": ("?page=compare&project=digits", {"viewport": PHONE}),
    }


def _empty() -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        "empty": ("?", {}),
        "empty_dark": ("?page=sweeps", {"color_scheme": "dark"}),
        "empty_monitoring": ("?page=monitoring", {}),
    }


def _take(browser: Any, server: Server, pictures: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Take pictures; those named in the arguments, if there are any."""
    first = browser.new_context()
    first.new_page().goto(server.open_url())
    state = first.storage_state()
    first.close()
    for name, (query, how) in pictures.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        width, height = how.get("viewport", LAPTOP)
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=how.get("color_scheme", "light"),
            reduced_motion="reduce",
            storage_state=state,
        )
        page = context.new_page()
        page.on("pageerror", lambda error, name=name: print(name, error))
        page.goto(server.url + query)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(how.get("wait_ms", 1_200))
        if "then" in how:
            page.evaluate(how["then"])
            page.wait_for_timeout(2_500)
        page.screenshot(path=FOLDER / f"{name}.png")
        context.close()


if __name__ == "__main__":
    main()
