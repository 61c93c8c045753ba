"""Serving a version of a model over HTTP. Imports FastAPI and uvicorn only where something is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstone.errors import InvalidConfig
from runstone.serving.config import Bounds, LogConfig, ServingConfig
from runstone.serving.places import Place, log_folder

if TYPE_CHECKING:
    from runstone.serving.app import Serving

__all__ = ["Bounds", "LogConfig", "Place", "ServingConfig", "create_app", "log_folder", "serve", "serve_on_ray"]


def create_app(place: Place, config: ServingConfig) -> Serving:
    """Return the ASGI application that serves a model, for a server of one's own.

    Args:
        place: The model.
        config: How it is served; its host and port say under which name it may be reached.

    Raises:
        InvalidConfig: what serving takes is not installed.
        RunstoneError: the model cannot be loaded.
    """
    with _told():
        from runstone.serving import app
        from runstone.serving.service import Service
    return app.create_app(Service(place.source(config.bounds.rows), config))


def serve(place: Place, config: ServingConfig, **options: Any) -> None:
    """Serve a model until the process is asked to end; see `runstone.serving.process.serve`."""
    with _told():
        from runstone.serving import process
    process.serve(place, config, **options)


def serve_on_ray(place: Place, config: ServingConfig, **options: Any) -> None:
    """Serve a model on Ray Serve until the process is asked to end; see `runstone.serving.rayserve.serve`."""
    with _told():
        from runstone.serving import rayserve
    rayserve.serve(place, config, **options)


class _told:
    """Says what to install where a package is missing."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Turn an import that failed into words."""
        if isinstance(error, ImportError):
            raise InvalidConfig(
                f'serving models takes {error.name or "more packages"}: pip install "runstone[serving]"'
            ) from None
