"""scikit-learn: skops files, which hold no pickle. What is not of a known library must be trusted by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue
from runstone.models.flavours._base import Origin, Saved, class_path, digest

_FILE = "model.skops"


class _Sklearn:
    name = "sklearn"

    def fits(self, model: Any) -> bool:
        from sklearn.base import BaseEstimator

        return isinstance(model, BaseEstimator)

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        import sklearn
        from skops import io

        try:
            io.dump(model, folder / _FILE)
        except Exception as error:  # skops meets whatever the estimator holds
            raise InvalidValue(
                f"{type(model).__name__} cannot be saved as skops: {type(error).__name__}: {error}; "
                'save it with flavour="pickle", which can be loaded only with trusted=True'
            ) from error
        classes = getattr(model, "classes_", None)
        labels = tuple(classes.tolist()) if classes is not None and hasattr(classes, "tolist") else None
        loading = {"class": class_path(model), "versions": {"scikit-learn": sklearn.__version__}}
        return Saved(loading, labels, digest(*_structure(model)))

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        from skops import io

        path = folder / _FILE
        unknown = io.get_untrusted_types(file=path)
        if unknown and not is_trusted:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise origin.untrusted(f"holds types that are loaded only on trust: {', '.join(unknown[:5])}{more}")
        return io.load(path, trusted=unknown)

    def predict(self, model: Any, data: Any) -> Any:
        return model.predict(data) if hasattr(model, "predict") else model.transform(data)


def _structure(model: Any) -> list[str]:
    """Return the classes of an estimator and of those inside it, in order: fitted values and settings left out."""
    found = [class_path(model)]
    for name, value in sorted(model.get_params(deep=True).items()):
        if hasattr(value, "get_params"):
            found.append(f"{name}={class_path(value)}")
    return found


FLAVOUR = _Sklearn()
