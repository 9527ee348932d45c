"""The OpenAPI document, made from the operations and their models, so that it cannot say anything else."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ledger_sync import __version__
from ledger_sync.contrib.web.operations import Operation

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "remedy": {"type": "string", "description": "What to do next."},
        "syncId": {"type": "string", "description": "The run that it is about."},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}

ALWAYS: Final = (400, 401, 403, 404, 422, 503)
"""What any operation may answer instead."""

WITH_BODY: Final = (413, 415)
"""And one that has a body."""


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """All operations as OpenAPI 3.1, with paths relative to the document's own folder."""
    modes: dict[tuple[type[BaseModel], Any], None] = {}
    for operation in operations:
        modes[operation.answer, "serialization"] = None
        if operation.body is not None:
            modes[operation.body, "validation"] = None
    references, definitions = models_json_schema(
        list(modes), by_alias=True, ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ledger_sync",
            "version": __version__,
            "summary": "Backfills, started and watched; the proof; open items, settled by hand.",
        },
        "servers": [{"url": "."}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**definitions["$defs"], "Problem": PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, references: Any) -> dict[str, Any]:
    parameters = _parameters(operation.query)
    if "{syncId}" in operation.path:
        parameters.insert(0, {"name": "syncId", "in": "path", "required": True, "schema": {"type": "string"}})
    statuses = sorted({*ALWAYS, *operation.problems, *(WITH_BODY if operation.body is not None else ())})
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answer = {"application/json": {"schema": references[operation.answer, "serialization"]}}
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the right to {operation.right}.",
        "parameters": parameters,
        "responses": {
            str(operation.status): {"description": HTTPStatus(operation.status).phrase, "content": answer},
            **{str(code): {"description": HTTPStatus(code).phrase, "content": problem} for code in statuses},
        },
    }
    if operation.body is not None:
        schema = references[operation.body, "validation"]
        required = any(field.is_required() for field in operation.body.model_fields.values())
        told["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    return told


def _parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema(by_alias=True)
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _not_null(given)}
        for name, given in schema.get("properties", {}).items()
    ]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out; a query has no null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else {name: told for name, told in schema.items() if name != "default"}
