"""JSON Schemas of the YAML files, for editors."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from edgesparse.spec.device import Device, Group
from edgesparse.spec.pipeline import Pipeline


def schema_text(kind: str) -> str:
    """JSON Schema of a kind of file."""
    models: dict[str, Any] = {"pipeline": Pipeline, "device": Device | Group}
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(models[kind]).json_schema(mode="validation"),
    }
    return json.dumps(_with_variables(found), indent=1)


def _with_variables(schema: Any) -> Any:
    """The same schema, where text may also have a ${VARIABLE}: an editor does not expand it."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _with_variables(value) for key, value in schema.items()}
    if isinstance(found.get("pattern"), str):
        found["pattern"] += r"|\$\{"
    return found
