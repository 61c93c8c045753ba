"""torch modules: weights as safetensors, and the class that holds them. Nothing is unpickled."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue, NotFound
from runstone.models.flavours._base import Origin, Saved, class_path, digest
from runstone.params import to_json

_FILE = "model.safetensors"


class _Torch:
    name = "torch"

    def fits(self, model: Any) -> bool:
        import torch

        return isinstance(model, torch.nn.Module)

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        import torch
        from safetensors.torch import save_model

        state = model.state_dict()
        others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if others:
            raise InvalidValue(
                f"{type(model).__name__} keeps more than tensors in its state: {', '.join(others[:5])}; save a folder "
                'of its files, or flavour="pickle", which can be loaded only with trusted=True'
            )
        # shared weights are kept once, and tied again on loading
        save_model(model, str(folder / _FILE))
        loading: dict[str, Any] = {"class": class_path(model), "versions": {"torch": torch.__version__}}
        arguments = dict(init) if init is not None else _known_arguments(model)
        if arguments is not None:
            converted, lost = to_json(arguments)
            if lost and init is not None:
                raise InvalidValue(f"init must be JSON, so that it can be kept: {', '.join(map(str, lost))} is not")
            if not lost:
                loading["init"] = converted
        shapes = [f"{name}:{tuple(value.shape)}:{value.dtype}" for name, value in state.items()]
        return Saved(loading, None, digest(class_path(model), *shapes))

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        from safetensors.torch import load_model

        model = into if into is not None else _empty(loading, origin)
        missing, unexpected = load_model(model, str(folder / _FILE))
        if missing or unexpected:
            raise InvalidValue(f"{origin.ref} does not fit {type(model).__name__}: {missing or unexpected}")
        return model.eval()

    def predict(self, model: Any, data: Any) -> Any:
        import torch

        def tensor(value: Any) -> Any:
            return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)

        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                if isinstance(data, Mapping):
                    return model(**{name: tensor(value) for name, value in data.items()})
                return model(tensor(data.to_numpy() if hasattr(data, "to_numpy") else data))
        finally:
            model.train(training)


def _known_arguments(model: Any) -> dict[str, Any] | None:
    """Return what the model was made with, where it says so: Lightning keeps it in `hparams`."""
    hparams = getattr(model, "hparams", None)
    if isinstance(hparams, Mapping) and hparams:
        return dict(hparams)
    import inspect

    try:
        needed = [
            parameter
            for parameter in inspect.signature(type(model)).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return None
    return None if needed else {}


def _empty(loading: Mapping[str, Any], origin: Origin) -> Any:
    """Make a model of the class without its weights."""
    import torch

    path = str(loading["class"])
    module_name, _, qualified = path.partition(":")
    how = "; make one yourself, and give it: load_model(..., into=model)"
    if module_name == "__main__" or "<locals>" in qualified:
        raise NotFound(f"{origin.ref} was saved from {qualified} of a script, which cannot be imported{how}")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise NotFound(f"{origin.ref} needs the class {path}, which cannot be imported: {error}{how}") from None
    # the manifest says which class: it must be one that holds weights, and nothing else is ever called
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise InvalidValue(f"{origin.ref} names {path} as its class, and that is no torch module")
    if "init" not in loading:
        raise NotFound(f"{origin.ref} does not say with which arguments {qualified} is made{how}")
    return found(**loading["init"])


FLAVOUR = _Torch()
