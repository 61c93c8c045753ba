"""Keras 3 on any backend: `.keras` files, loaded in Keras's safe mode unless they are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.models.flavours._base import Origin, Saved, digest
from runstone.models.flavours._files import copy_in

_FILE = "model.keras"


class _Keras:
    name = "keras"

    def fits(self, model: Any) -> bool:
        import keras

        return isinstance(model, keras.Model)

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        import keras

        loading = {"versions": {"keras": keras.__version__}}
        if isinstance(model, str | Path):
            copy_in(Path(model), folder / _FILE)
            return Saved(loading)
        model.save(folder / _FILE)
        return Saved({**loading, "backend": keras.backend.backend()}, None, digest(model.to_json()))

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        import keras

        try:
            return keras.saving.load_model(folder / _FILE, safe_mode=not is_trusted)
        except ValueError as error:
            if is_trusted or "safe_mode" not in str(error):
                raise
            raise origin.untrusted("holds a Lambda layer or another piece of Python code") from None

    def predict(self, model: Any, data: Any) -> Any:
        return model.predict(data.to_numpy() if hasattr(data, "to_numpy") else data, verbose=0)


FLAVOUR = _Keras()
