"""torch programs of `torch.export`, which run without their class. Their files hold pickles, so they take trust."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.models.flavours._base import Origin, Saved, digest
from runstone.models.flavours._files import copy_in

_FILE = "model.pt2"


class _TorchExport:
    name = "torch.export"

    def fits(self, model: Any) -> bool:
        import torch

        return isinstance(model, torch.export.ExportedProgram)

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        import torch

        loading = {"versions": {"torch": torch.__version__}}
        if isinstance(model, str | Path):
            copy_in(Path(model), folder / _FILE)
            return Saved(loading)
        torch.export.save(model, folder / _FILE)
        return Saved(loading, None, digest(model.graph))

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        import torch

        if not is_trusted:
            raise origin.untrusted("is a torch.export program, whose file may hold pickles")
        return torch.export.load(folder / _FILE).module()

    def predict(self, model: Any, data: Any) -> Any:
        import torch

        module = model.module() if isinstance(model, torch.export.ExportedProgram) else model
        with torch.no_grad():
            if isinstance(data, Mapping):
                return module(**{name: torch.as_tensor(value) for name, value in data.items()})
            return module(torch.as_tensor(data))


FLAVOUR = _TorchExport()
