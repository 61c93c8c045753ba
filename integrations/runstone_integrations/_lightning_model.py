"""What a module is: a table of its layers, the shapes that went through them, and its weights as a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone_integrations._shared import parameter_count, type_name

if TYPE_CHECKING:
    from runstone import Run

_MOST_ROWS = 1_000
_HEAD = ("layer", "class", "parameters", "trainable", "in", "out")


class LayerShapes:
    """The shapes of what goes in and out of each layer in one batch of the training. No batch is run for it.

    `watch` hooks into the forward passes to come, `take` lets go of them.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._shapes: dict[str, tuple[str, str]] = {}

    def watch(self, module: Any) -> None:
        """Note the shapes from here on. Layers under `torch.compile` are left alone: a hook compiles them again."""
        compiled = tuple(f"{name}." for name, layer in module.named_modules() if name and hasattr(layer, "_orig_mod"))
        for name, layer in module.named_modules():
            if name and not name.startswith(compiled):
                self._handles.append(layer.register_forward_hook(self._noting(name)))

    def take(self) -> dict[str, tuple[str, str]]:
        """Take the hooks out; return shapes in and out by layer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        return self._shapes

    def _noting(self, name: str) -> Any:
        def note(_layer: Any, inputs: Any, output: Any) -> None:
            self._shapes.setdefault(name, (_shape(inputs), _shape(output)))

        return note


def layer_table(module: Any, shapes: Mapping[str, tuple[str, str]]) -> str:
    """Return a table of all layers as text: class, parameters, trainable ones, shapes where they are known."""
    rows = [_HEAD, *_rows(module, shapes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _rows(module: Any, shapes: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    for index, (name, layer) in enumerate(module.named_modules()):
        if index > _MOST_ROWS:
            yield f"… ({sum(1 for _ in module.modules())} layers)", "", "", "", "", ""
            return
        count = parameter_count(layer.parameters())
        trainable = parameter_count(each for each in layer.parameters() if each.requires_grad)
        counts = ("?" if number is None else f"{number:,}" for number in (count, trainable))
        yield name or "(all)", type_name(layer), *counts, *shapes.get(name, ("", ""))


def _shape(value: Any, depth: int = 2) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return "×".join(map(str, shape)) or "scalar"
    if isinstance(value, list | tuple) and depth:
        parts = [_shape(part, depth - 1) for part in value]
        return ", ".join(part for part in parts if part)
    if isinstance(value, Mapping) and depth:
        parts = [f"{key} {_shape(part, depth - 1)}" for key, part in value.items()]
        return ", ".join(parts)
    return ""


def store_weights(run: Run, module: Any, weights: Mapping[str, Any], *, step: int, epoch: int) -> None:
    """Store weights as the artifact `model`: a file that `torch.load(path, weights_only=True)` reads."""
    import torch  # loaded long since: this process trains with it

    with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
        path = Path(folder, "model.pt")
        torch.save(dict(weights), path)
        run.log_artifact(
            path,
            name="model",
            metadata={
                "format": "torch state_dict",
                "class": type_name(module),
                "parameters": parameter_count(module.parameters()),
                "step": step,
                "epoch": epoch,
                "torch": torch.__version__,
            },
        )
