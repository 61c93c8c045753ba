"""Records a loop on Hugging Face Accelerate, as one of its trackers."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from accelerate.state import PartialState
from accelerate.tracking import GeneralTracker

import runstone
from runstone_integrations._session import RunOptions, Session, Tracking, recording
from runstone_integrations._shared import clean_params

__all__ = ["Tracker"]


class Tracker(GeneralTracker, Tracking):
    """Tracker that records as a run what is given to `Accelerator.log`.

    ```python
    accelerator = Accelerator(log_with=Tracker("digits"))
    accelerator.init_trackers("digits", config={"lr": 1e-3})
    accelerator.log({"loss": loss}, step=step)
    accelerator.end_training()
    ```

    The run opens with `init_trackers` and ends with `end_training`; the main process records. `run.should_stop` of
    `accelerator.get_tracker("runstone", unwrap=True)` tells your loop that it was asked to stop.

    With `accelerate.tracking.register_tracker_class(Tracker)`, `Accelerator(log_with="runstone")` makes one by itself,
    with the project of `init_trackers` and the options of its `init_kwargs`.

    Args:
        project_name: Project of the run.
        **options: See `RunOptions`.
    """

    name = "runstone"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, project_name: str | None = None, **options: Unpack[RunOptions]) -> None:
        super().__init__()
        if project_name is not None:
            options["project"] = project_name
        self._session = Session(options)

    @property
    def tracker(self) -> runstone.Run | None:
        """The run."""
        return self._session.run

    def start(self) -> None:
        """Open the run, in the main process; the others have none to record in."""
        if PartialState().is_main_process:
            self._session.start()

    @recording
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Record params."""
        if self._session.run is not None:
            self._session.run.log_params(clean_params(values))

    @recording
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record metrics; without a step, at the one that comes next."""
        run = self._session.run
        if run is None:
            return
        if step is None:
            run.log(values)
        else:
            self._session.log(values, step)

    @recording
    def log_images(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record lists of images by name."""
        self._log_media("log_image", values, step)

    @recording
    def log_table(
        self,
        table_name: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a table, of rows or as a data frame."""
        if dataframe is None:
            dataframe = [dict(zip(columns or [], row, strict=True)) for row in data or []]
        self._log_media("log_table", {table_name: [dataframe]}, step)

    def _log_media(self, method: str, values: Mapping[str, Any], step: int | None) -> None:
        if self._session.run is not None:
            if step is not None:
                step += self._session.offset
            for name, media in values.items():
                for medium in media:
                    getattr(self._session.run, method)(name, medium, step=step)

    def finish(self) -> None:
        """End the run."""
        self._session.close()
