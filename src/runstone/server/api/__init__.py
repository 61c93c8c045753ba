"""The routes of the API, one file an area. Each asks the domain and says what it answered."""

from __future__ import annotations

from fastapi import APIRouter

from runstone.server.api import admin, artifacts, catalog, compare, details, monitoring, reports, runs, series, sync


def routers() -> list[APIRouter]:
    """Return the routers of all areas."""
    return [
        admin.router,
        series.router,
        details.router,
        artifacts.router,
        runs.router,
        monitoring.router,
        catalog.router,
        compare.router,
        sync.router,
        reports.router,
    ]
