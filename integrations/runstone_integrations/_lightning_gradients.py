"""Norms of gradients, as tensors on the device that holds them: nothing here waits for a GPU, histograms excepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

GradientDetail = Literal["norms", "layers", "histograms"]


class Gradients:
    """The gradients of a module as an optimizer is about to use them: unscaled, not clipped yet.

    Args:
        detail: `"norms"`: of all parameters together and of each param group; `"layers"`: these and each layer's;
            `"histograms"`: these and a histogram of each layer, which needs the values and waits for a GPU.
        log_histogram: Takes name and values.
    """

    def __init__(self, detail: GradientDetail, log_histogram: Callable[[str, Any], None]) -> None:
        self._detail = detail
        self._log_histogram = log_histogram
        self._layers: dict[int, str] = {}  # by id of the parameter
        self._layers_of: Any = None

    def measure(self, trainer: Any, module: Any, optimizer: Any) -> dict[str, Any]:
        """Return norms by name, for the parameters of one optimizer. They are computed where the gradients are."""
        import torch  # loaded long since: this process trains with it

        prefix = "gradients/norm"
        if len(trainer.optimizers) > 1:
            prefix = f"{prefix}/{self._index(trainer, optimizer)}"
        with torch.no_grad():
            found = [
                (index, parameter, torch.linalg.vector_norm(gradient, dtype=_wide(torch, gradient)))
                for index, parameter, gradient in _gradients(torch, optimizer)
            ]
            if not found:
                return {}
            norms = {prefix: _together(torch, [norm for _, _, norm in found])}
            if len(optimizer.param_groups) > 1:
                for index in sorted({index for index, _, _ in found}):
                    own = [norm for other, _, norm in found if other == index]
                    norms[f"{prefix}/pg{index + 1}"] = _together(torch, own)
            if self._detail != "norms":
                for layer, members in self._by_layer(module, found).items():
                    norms[f"gradients/norm/{layer}"] = _together(torch, [norm for _, norm in members])
                    if self._detail == "histograms":
                        values = torch.cat([parameter.grad.flatten() for parameter, _ in members])
                        self._log_histogram(f"gradients/{layer}", values)
        return norms

    def _by_layer(self, module: Any, found: list[tuple[int, Any, Any]]) -> dict[str, list[tuple[Any, Any]]]:
        if self._layers_of is not module:
            self._layers_of = module
            self._layers = {
                id(parameter): name.rpartition(".")[0] or name for name, parameter in module.named_parameters()
            }
        layers: dict[str, list[tuple[Any, Any]]] = {}
        for _, parameter, norm in found:
            layer = self._layers.get(id(parameter))
            if layer is not None:
                layers.setdefault(layer, []).append((parameter, norm))
        return layers

    @staticmethod
    def _index(trainer: Any, optimizer: Any) -> int:
        own = getattr(optimizer, "optimizer", optimizer)
        return next(
            (index for index, each in enumerate(trainer.optimizers) if getattr(each, "optimizer", each) is own), 0
        )


def _gradients(torch: Any, optimizer: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield number of the param group, parameter and gradient. Sparse ones are left out: to add them up waits."""
    for index, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.layout is torch.strided and gradient.numel():
                yield index, parameter, gradient


def _wide(torch: Any, gradient: Any) -> Any:
    """Return the type to add squares in: those of half precision would overflow."""
    return torch.float32 if gradient.dtype in (torch.float16, torch.bfloat16) else None


def _together(torch: Any, norms: list[Any]) -> Any:
    """Return the norm of all from the norm of each; parameters may lie on several devices."""
    device = norms[0].device
    return torch.linalg.vector_norm(torch.stack([norm.to(device, torch.float32, non_blocking=True) for norm in norms]))
