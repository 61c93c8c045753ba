"""What OpenAPI says of a prediction: the signature as JSON Schema, with an example."""

from __future__ import annotations

from typing import Any

from runstone.models.signature import Field, Schema
from runstone.serving.bodies import ARROW, CSV, JSON, PARQUET
from runstone.serving.sources import Served

_TYPES: dict[str, dict[str, Any]] = {
    "float64": {"type": "number"},
    "int64": {"type": "integer"},
    "bool": {"type": "boolean"},
    "text": {"type": "string"},
    "category": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "duration": {"type": "number", "description": "seconds"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}
_ERRORS = {
    "400": "The body does not parse.",
    "401": "The token is missing or wrong.",
    "413": "The body is too large, or has too many rows.",
    "415": "The body is of no known type.",
    "422": "The model cannot take it; the message names row and column.",
    "503": "Busy, or the model took too long.",
}


def add_predict(document: dict[str, Any], served: Served) -> None:
    """Add `POST /predict` to an OpenAPI document."""
    schema = body_schema(served.signature.inputs)
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if served.example is not None:
        content[JSON]["example"] = served.example
    content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (CSV, PARQUET, ARROW)}
    problem = {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    document["paths"]["/predict"] = {
        "post": {
            "summary": "Predict",
            "operationId": "predict",
            "description": f"Predictions of {served}, one for each row.",
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": {"description": "Predictions.", "content": {JSON: {"schema": answer_schema(served)}}},
                **{status: {"description": text, "content": problem} for status, text in _ERRORS.items()},
            },
        }
    }


def body_schema(inputs: Schema) -> dict[str, Any]:
    """Return the JSON Schema of a body: rows, columns, or columns and data; for arrays nested lists."""
    if inputs.kind == "array":
        forms = [_nested(inputs.fields[0])]
    elif inputs.kind == "arrays":
        forms = [_object({one.name: _nested(one) for one in inputs.fields}, [one.name for one in inputs.fields])]
    else:
        needed = [one.name for one in inputs.fields if not one.is_optional]
        row = _object({one.name: _value(one) for one in inputs.fields}, needed)
        columns = {one.name: {"type": "array", "items": _value(one)} for one in inputs.fields}
        split = {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "minItems": 1, "items": {"type": "array"}},
        }
        forms = [
            {"type": "array", "minItems": 1, "items": row},
            _object(columns, needed),
            _object(split, ["columns", "data"]),
        ]
    return _object({"inputs": forms[0] if len(forms) == 1 else {"anyOf": forms}}, ["inputs"])


def answer_schema(served: Served) -> dict[str, Any]:
    """Return the JSON Schema of an answer."""
    outputs = served.signature.outputs
    item: dict[str, Any] = {}
    if outputs is not None and outputs.kind == "array":
        item = _nested(outputs.fields[0])["items"]
    elif outputs is not None:
        item = _object({one.name: {} for one in outputs.fields}, [])
    fields = {
        "predictions": {"type": "array", "items": item},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "request": {"type": "string", "description": "Names the request to /feedback."},
    }
    return _object(fields, list(fields))


def _value(one: Field) -> dict[str, Any]:
    schema = dict(_TYPES.get(one.dtype, {}))
    if "type" in schema and (one.is_optional or one.dtype == "float64"):
        schema["type"] = [schema["type"], "null"]
    return schema


def _nested(one: Field) -> dict[str, Any]:
    schema = _value(one)
    for size in reversed(one.shape[1:]):
        bounds = {"minItems": size, "maxItems": size} if size >= 0 else {}
        schema = {"type": "array", "items": schema, **bounds}
    return {"type": "array", "minItems": 1, "items": schema}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}
