"""ONNX graphs, run by ONNX Runtime. They hold no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.models.flavours._base import Origin, Saved, digest

_FILE = "model.onnx"


class _Onnx:
    name = "onnx"

    def fits(self, model: Any) -> bool:
        import onnx

        return isinstance(model, onnx.ModelProto)

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        import onnx

        if isinstance(model, str | Path):
            # weights beside the file are part of it
            model = onnx.load(model)
        onnx.checker.check_model(model)
        onnx.save(model, folder / _FILE)
        nodes = [f"{node.op_type}:{','.join(node.input)}:{','.join(node.output)}" for node in model.graph.node]
        opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        return Saved({"opsets": opsets}, None, digest(*nodes))

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(folder / _FILE, providers=onnxruntime.get_available_providers())

    def predict(self, model: Any, data: Any) -> Any:
        import numpy as np

        if not hasattr(model, "run"):  # the graph itself, when it is saved
            import onnxruntime

            model = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        inputs = model.get_inputs()
        if not isinstance(data, Mapping):
            data = {inputs[0].name: data.to_numpy() if hasattr(data, "to_numpy") else data}
        arrays = {name: np.asarray(value) for name, value in data.items()}
        types = {entry.name: _NUMPY.get(entry.type) for entry in inputs}
        given = {name: array.astype(types.get(name) or array.dtype) for name, array in arrays.items()}
        outputs = model.run(None, given)
        if len(outputs) == 1:
            return outputs[0]
        return dict(zip((entry.name for entry in model.get_outputs()), outputs, strict=True))


_NUMPY = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}

FLAVOUR = _Onnx()
