"""Follows a module through a training loop: norms and histograms of gradients and weights, at optimizer steps."""

from __future__ import annotations

import contextlib
import sys
import warnings
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import runstone
from runstone_integrations._pytorch_histograms import Histograms
from runstone_integrations._pytorch_layers import LayerTable, is_compiled
from runstone_integrations._pytorch_run import run_to_record_in
from runstone_integrations._shared import clean_params, parameter_count, type_name

Detail = Literal["layers", "parameters"]


def track_module(
    model: torch.nn.Module,
    run: runstone.Run | None = None,
    *,
    every_n_steps: int = 50,
    gradients: bool = True,
    weights: bool = False,
    histograms: bool = False,
    graph: bool = False,
    detail: Detail = "layers",
    first_step: int = 0,
) -> ModuleTracker:
    """Record what becomes of a module's gradients and weights while it is trained.

    ```python
    with track_module(model, every_n_steps=100):
        for x, y in loader:
            loss_fn(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    ```

    After each n-th step of an optimizer that holds parameters of the module, one row: `gradients/norm` and, with
    `weights`, `weights/norm` of all of them together; `gradients/norm/<layer>`, `weights/norm/<layer>` of each layer;
    `optimizer/learning_rate`. A second optimizer has names that end in `-2`. The step is the number of the optimizer's
    step, counted from 0, so that gradients accumulated over several batches are one row. Gradients are those that the
    optimizer has used: unscaled, and clipped where the loop clips them. For those before clipping, see
    `ModuleTracker.step`.

    Class and size of the module and the settings of its optimizers become params `pytorch`; the table of its layers
    the text `model/layers`.

    Nothing is put into the module: it is copied, pickled and saved as it would be without this, and no batch is
    computed otherwise. Values on a GPU are not waited for. The module is held weakly; tracking it again ends the
    tracking before. On ranks other than 0 of a process group nothing is recorded, for gradients are the same there.

    Args:
        model: The module; one in `DistributedDataParallel` or from `torch.compile` is that inside.
        run: Default: the one that is open.
        every_n_steps: At least 1.
        gradients: Whether to record norms of gradients.
        weights: Whether to record norms of weights.
        histograms: Whether to record histograms too, `gradients/<layer>` and `weights/<layer>`, of at most 65,536
            values each. Those from a GPU are recorded with a later step, or with `close`.
        graph: Whether the table of layers is to have the shapes of the first batch.
        detail: Whether norms and histograms are by layer, the module that holds the parameters, or by parameter.
        first_step: Number of the first step: after a restart, that of the checkpoint.

    Returns:
        What ends the tracking: `close()`, or the end of a `with` block.

    Raises:
        InvalidValue: the module is sharded (FSDP, tensor parallel, DeepSpeed ZeRO): no rank has whole gradients.
            `every_n_steps` is below 1, or `detail` is none of its words.
        RunNotFound: there is no `run`, and none is open.
    """
    if every_n_steps < 1:
        raise runstone.InvalidValue(f"every_n_steps is {every_n_steps!r}; it must be 1 or more")
    if detail not in ("layers", "parameters"):
        raise runstone.InvalidValue(f"detail is {detail!r}; it is 'layers' or 'parameters'")
    inner = _unwrapped(model)
    _refuse_shards(inner)
    before = _trackers.pop(inner, None)
    if before is not None:
        before.close()
    kinds = [kind for kind, is_wanted in (("gradients", gradients), ("weights", weights)) if is_wanted]
    tracker = ModuleTracker(
        inner,
        run_to_record_in(run),
        kinds=kinds,
        every_n_steps=every_n_steps,
        has_histograms=histograms,
        has_shapes=graph and not is_compiled(model),  # a hook would be compiled too, and the module again without it
        detail=detail,
        first_step=first_step,
    )
    _trackers[inner] = tracker
    return tracker


class ModuleTracker:
    """Records a module at the steps of its optimizers, until it is closed; see `track_module`, which makes it."""

    def __init__(
        self,
        model: torch.nn.Module,
        run: runstone.Run | None,
        *,
        kinds: list[str],
        every_n_steps: int,
        has_histograms: bool,
        has_shapes: bool,
        detail: Detail,
        first_step: int,
    ) -> None:
        self._model = weakref.ref(model)
        self._run = run
        self._kinds = kinds
        self._every_n = every_n_steps
        self._detail = detail
        self._first_step = first_step
        self._optimizers: weakref.WeakKeyDictionary[Any, _Steps] = weakref.WeakKeyDictionary()
        self._own_steps = _Steps("", first_step)
        self._is_stepped_by_hand = False
        self._metrics: dict[str, runstone.MetricHandle] = {}
        self._histograms = Histograms(run) if run is not None and has_histograms else None
        self._layers: LayerTable | None = None
        self._hook: Any = None
        self._is_warned = False
        if run is None:
            return
        with self._guarded():
            run.log_params({"pytorch": {"model": _facts(model)}})
            self._layers = LayerTable(model, self._log_layers, has_shapes=has_shapes)
        self._hook = register_optimizer_step_post_hook(self._after_step)
        self._end = weakref.finalize(model, self.close)

    def step(self) -> None:
        """Take gradients and weights as they are now for those of a step.

        From the first call on, steps are counted here and no longer by hooks in optimizers. Call it once a step: before
        the gradients are clipped, to record them as they were; after the replay of a CUDA graph; where no optimizer of
        torch makes the step, or a compiled one does.
        """
        self._is_stepped_by_hand = True
        if self._run is not None and not self._run.is_finished:
            with self._guarded():
                self._take_step(self._run, self._own_steps, None)

    def close(self) -> None:
        """End the tracking: take the hooks out, and record what is still on its way. A second call does nothing."""
        if self._layers is not None:
            with self._guarded():
                self._layers.close()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
            self._end.detach()
        if self._histograms is not None and self._run is not None and not self._run.is_finished:
            with self._guarded():
                self._histograms.log_what_came(wait=True)

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the tracking."""
        self.close()

    # --- at a step -------------------------------------------------------------------------------------------------

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Count the step of an optimizer of this process, if it is one of the module's. Runs in all of them."""
        run = self._run
        if run is None or run.is_finished or self._is_stepped_by_hand or torch.compiler.is_compiling():
            return
        with self._guarded():
            steps = self._optimizers.get(optimizer)
            if steps is None:
                steps = self._meet(run, optimizer)
            if steps.is_own:
                self._take_step(run, steps, optimizer)

    def _meet(self, run: runstone.Run, optimizer: Any) -> _Steps:
        model = self._model()
        own = {id(parameter) for parameter in model.parameters()} if model is not None else set()
        is_own = any(id(parameter) in own for parameter in _parameters(optimizer))
        number = 1 + sum(other.is_own for other in self._optimizers.values())
        steps = _Steps("" if number == 1 else f"-{number}", self._first_step, is_own=is_own)
        self._optimizers[optimizer] = steps
        if is_own:
            log_optimizer(optimizer, run, name=f"optimizer{steps.suffix}")
        return steps

    def _take_step(self, run: runstone.Run, steps: _Steps, optimizer: Any) -> None:
        step = steps.next_step
        steps.next_step += 1
        if self._histograms is not None:
            self._histograms.log_what_came()
        if steps.next_step % self._every_n:
            return
        cuda: Any = torch.cuda
        if cuda.is_initialized() and cuda.is_current_stream_capturing():
            return  # what is captured here is computed by each replay, and nobody would read it
        with torch.no_grad():
            row = self._row(steps, optimizer, step)
        for name, value in row.items():
            handle = self._metrics.get(name)
            if handle is None:  # they count steps of their own: those that `run.log` counts are left alone
                handle = self._metrics[name] = run.metric(name)
            handle(value, step=step)

    def _row(self, steps: _Steps, optimizer: Any, step: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        parameters = self._named_parameters(optimizer)
        for kind in self._kinds:
            tensors = _tensors(kind, parameters)
            if not tensors:
                continue
            norms = _norms(list(tensors.values()))
            row[f"{kind}/norm{steps.suffix}"] = _together(norms)
            groups = self._groups(tensors, norms)
            if self._detail == "parameters" or len(groups) > 1:
                row |= {f"{kind}/norm/{group}": _together(own) for group, (_, own) in groups.items()}
            if self._histograms is not None:
                for group, (values, _) in groups.items():
                    if not any(value.is_complex() for value in values):
                        self._histograms.log(f"{kind}/{group}", values, step=step)
        if optimizer is not None:
            row |= _rates(optimizer, steps.suffix)
        return row

    def _named_parameters(self, optimizer: Any) -> dict[str, torch.nn.Parameter]:
        """Return the parameters of the module that an optimizer holds, all of them where there is none."""
        model = self._model()
        if model is None:
            return {}
        held = None if optimizer is None else {id(parameter) for parameter in _parameters(optimizer)}
        return {name: each for name, each in model.named_parameters() if held is None or id(each) in held}

    def _groups(
        self, tensors: Mapping[str, torch.Tensor], norms: list[torch.Tensor]
    ) -> dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]]:
        groups: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for (name, tensor), norm in zip(tensors.items(), norms, strict=True):
            group = name if self._detail == "parameters" else name.rpartition(".")[0] or name
            values, own = groups.setdefault(group, ([], []))
            values.append(tensor)
            own.append(norm)
        return groups

    def _log_layers(self, table: str) -> None:
        if self._run is not None and not self._run.is_finished:
            self._run.log_text("model/layers", table, step=self._first_step)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep an error of the tracker away from the training: warn once, or raise where the run wants that."""
        try:
            yield
        except Exception as error:
            if self._run is None or self._run.on_error == "raise":
                raise
            if self._is_warned:
                return
            self._is_warned = True
            message = f"training goes on, but not all of the module is recorded: {type(error).__name__}: {error}"
            try:
                warnings.warn(message, runstone.TrackingWarning, stacklevel=4)
            except runstone.TrackingWarning:  # a filter turns warnings into errors, and would stop the training
                print(f"runstone: {message}", file=sys.stderr)


def log_optimizer(optimizer: Any, run: runstone.Run | None = None, *, name: str = "optimizer") -> None:
    """Record class and settings of an optimizer as params `pytorch.<name>`. `track_module` does it by itself.

    Args:
        optimizer: Of `torch.optim`, or anything with `param_groups`; settings are by group where there are several.
        run: Default: the one that is open.
        name: Under which name.

    Raises:
        RunNotFound: there is no `run`, and none is open.
    """
    found = run_to_record_in(run)
    if found is None:
        return
    groups = [_group_facts(group) for group in optimizer.param_groups]
    settings: dict[str, Any] = groups[0] if len(groups) == 1 else {"groups": groups}
    found.log_params({"pytorch": {name: {"class": type_name(optimizer), **settings}}})


class _Steps:
    """The steps of one optimizer; its names end in `suffix`."""

    def __init__(self, suffix: str, first_step: int, *, is_own: bool = True) -> None:
        self.suffix = suffix
        self.next_step = first_step
        self.is_own = is_own


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    while True:
        inner: Any = getattr(model, "_orig_mod", None)  # of what `torch.compile` returns
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner


def _refuse_shards(model: torch.nn.Module) -> None:
    for layer in model.modules():
        is_flat = type(layer).__name__ == "FullyShardedDataParallel"
        if is_flat or any(hasattr(each, "full_tensor") or hasattr(each, "ds_id") for each in layer.parameters(False)):
            raise runstone.InvalidValue(
                f"{type_name(model)} is sharded over several processes (in {type_name(layer)}): no rank has whole "
                "gradients to record; log what the training library computes, such as the result of clip_grad_norm_"
            )


def _facts(model: torch.nn.Module) -> dict[str, Any]:
    return {
        "class": type_name(model),
        "params_total": parameter_count(model.parameters()),
        "params_trainable": parameter_count(each for each in model.parameters() if each.requires_grad),
    }


def _group_facts(group: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in group.items() if name != "params"}
    for name, value in facts.items():
        if getattr(value, "is_cuda", False):
            facts[name] = f"a tensor on {value.device}"  # to read it would wait for the device
    return {**clean_params(facts), "parameters": parameter_count(group["params"])}


def _parameters(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _tensors(kind: str, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    found = {name: each.grad if kind == "gradients" else each.detach() for name, each in parameters.items()}
    return {name: _dense(tensor.detach()) for name, tensor in found.items() if tensor is not None and tensor.numel()}


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    # Adding up what is given several times for one place waits for a GPU; without it the norm would be wrong.
    return tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor


def _norms(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the norm of each tensor, where the tensor is; squares of half precision would overflow."""
    return [
        torch.linalg.vector_norm(
            tensor, dtype=torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None
        )
        for tensor in tensors
    ]


def _together(norms: list[torch.Tensor]) -> torch.Tensor:
    """Return the norm of all from the norm of each; they may be on several devices, of which a GPU is taken."""
    device = next((norm.device for norm in norms if norm.is_cuda), norms[0].device)
    together = torch.stack([norm.to(device, torch.float32, non_blocking=True) for norm in norms])
    norm: torch.Tensor = torch.linalg.vector_norm(together)
    return norm


def _rates(optimizer: Any, suffix: str) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for number, group in enumerate(optimizer.param_groups, start=1):
        if "lr" in group:
            rates[f"optimizer{suffix}/learning_rate{f'-{number}' if number > 1 else ''}"] = group["lr"]
    return rates


# Whatever torch copies of a module must not be found in it. Process-wide, as the hooks of optimizers are.
_trackers: weakref.WeakKeyDictionary[torch.nn.Module, ModuleTracker] = weakref.WeakKeyDictionary()
