"""The table of a module's layers, with the shapes that went through them in one batch. Leaves no hook in the module."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook

from runstone_integrations._lightning_model import layer_table


class LayerTable:
    """Makes a table of a module's layers, at once or after its first forward pass.

    The hook is one of torch's for all modules: one in the module would be pickled, copied and saved with it.

    Args:
        module: Held weakly.
        take: Given the table, once.
        has_shapes: Whether to wait for the first forward pass, or for `close`.
    """

    def __init__(self, module: torch.nn.Module, take: Callable[[str], None], *, has_shapes: bool) -> None:
        self._module = weakref.ref(module)
        self._take: Callable[[str], None] | None = take
        self._names = {id(layer): name for name, layer in module.named_modules()}
        self._shapes: dict[str, tuple[str, str]] = {}
        self._hook: Any = None
        if has_shapes:
            self._hook = register_module_forward_hook(self._note)
        else:
            self.close()

    def _note(self, layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        name = self._names.get(id(layer))
        if name is None:
            return
        self._shapes.setdefault(name, (_shape(inputs), _shape(output)))
        if layer is self._module():
            self.close()

    def close(self) -> None:
        """Let go of the hook, and give the table as far as it is known. A second call does nothing."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        module, take, self._take = self._module(), self._take, None
        if take is not None and module is not None:
            take(layer_table(module, self._shapes))


def is_compiled(module: torch.nn.Module) -> bool:
    """Return whether `torch.compile` has a hand in a part of the module."""
    return any(
        hasattr(layer, "_orig_mod") or getattr(layer, "_compiled_call_impl", None) is not None
        for layer in module.modules()
    )


def _shape(value: Any, depth: int = 2) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return "×".join(map(str, shape)) or "scalar"
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return ", ".join(text for text in (_shape(part, depth - 1) for part in parts) if text) if depth else ""
