"""How models of each framework are saved and loaded, with nothing executed that was not trusted.

A framework is imported only where a model of it is at hand, so this package costs nothing and needs nothing.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue
from runstone.models.flavours._base import Flavour, Origin, Saved, UntrustedModel
from runstone.names import shown

__all__ = ["FLAVOURS", "Flavour", "Origin", "Saved", "UntrustedModel", "flavour_named", "flavour_of"]

FLAVOURS = ("sklearn", "torch", "torch.export", "keras", "onnx", "files", "pickle")
# In the order in which they are asked whether a model is theirs: a Keras model on torch is a torch module, too.
_BY_FRAMEWORK = (
    ("keras", "keras"),
    ("torch", "torch"),
    ("torch.export", "torch"),
    ("onnx", "onnx"),
    ("sklearn", "sklearn"),
)
_BY_SUFFIX = {".onnx": "onnx", ".keras": "keras", ".pt2": "torch.export"}


def flavour_named(name: str) -> Flavour:
    """Return the flavour of this name.

    Raises:
        InvalidValue: there is none.
    """
    if name not in FLAVOURS:
        raise InvalidValue(f"there is no flavour {name!r:.80}; there is {', '.join(FLAVOURS)}")
    import importlib  # each flavour is a file of its own

    module = importlib.import_module(f"runstone.models.flavours._{name.replace('.', '_')}")
    found: Flavour = module.FLAVOUR
    return found


def flavour_of(model: Any) -> Flavour:
    """Return the flavour that a model, or a path, is saved with.

    Raises:
        InvalidValue: none fits; the message says what may be given.
    """
    if isinstance(model, str | Path):
        return flavour_named(_BY_SUFFIX.get(Path(model).suffix, "files"))
    loaded = {word.partition(".")[0] for word in sys.modules}
    for name, framework in _BY_FRAMEWORK:
        if framework not in loaded:  # the model could not be one of its
            continue
        with contextlib.suppress(ImportError):  # one that was begun to be imported, and cannot
            if (flavour := flavour_named(name)).fits(model):
                return flavour
    raise InvalidValue(
        f"no flavour saves {shown(model)}; give a model of scikit-learn, torch, Keras or ONNX, the path of its files, "
        'or flavour="pickle", which can be loaded only with trusted=True'
    )
