"""Any Python object as a pickle. Loading one executes what its author wrote, so it always takes trust."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue
from runstone.models.flavours._base import Origin, Saved, class_path

_FILE = "model.pkl"


class _Pickle:
    name = "pickle"

    def fits(self, model: Any) -> bool:
        return False  # only where it is asked for

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        try:
            with (folder / _FILE).open("wb") as file:
                pickle.dump(model, file, protocol=5)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise InvalidValue(f"{type(model).__name__} cannot be pickled: {error}") from error
        return Saved({"class": class_path(model)})

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        if not is_trusted:
            raise origin.untrusted("is a pickle, which may execute anything")
        with (folder / _FILE).open("rb") as file:
            return pickle.load(file)  # noqa: S301  # the caller said that it is trusted

    def predict(self, model: Any, data: Any) -> Any:
        if not hasattr(model, "predict"):
            raise InvalidValue(f"{type(model).__name__} has no predict")
        return model.predict(data)


FLAVOUR = _Pickle()
