"""JSON Schemas of the YAML files, for editors."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from edgesparse.spec.device import Device, Group
from edgesparse.spec.pipeline import Pipeline


def schema_text(kind: str) -> str:
    """Return the JSON Schema of a kind of file: "pipeline" or "device"."""
    models: dict[str, Any] = {"pipeline": Pipeline, "device": Device | Group}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(models[kind]).json_schema(mode="validation"),
    }
    return json.dumps(_with_variables(schema), indent=1)


def _with_variables(schema: Any) -> Any:
    """Return the schema with ${VARIABLE} allowed in texts, since editors do not expand it."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _with_variables(value) for key, value in schema.items()}
    if isinstance(changed.get("pattern"), str):
        changed["pattern"] += r"|\$\{"
    return changed
