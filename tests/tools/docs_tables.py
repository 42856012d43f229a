"""Writes the tables of keys into the documentation's pages, from the models of the YAML files.

python -m tests.tools.docs_tables

A table stands between `<!-- keys of NAME -->` and `<!-- end -->`, where NAME is a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgesparse.docs import PAGES
from edgesparse.spec.base import Strict
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.schema import schema_text
from edgesparse.spec.step import FineTune

BLOCK = re.compile(r"(<!-- keys of (\w+)[^>]* -->\n).*?(<!-- end -->)", re.S)
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
PAGE_OF = {
    "data": "data", "model": "models", "task": "tasks", "metric": "tasks", "train": "training",
    "variants": "variants", "benchmark": "gates", "verify": "gates",
    "gates": "gates", "store": "../tutorials/cluster", "tracking": "tracking",
    "search": "search", "release": "releases",
}  # fmt: skip
"""Pages about the sections of a pipeline."""


def models(base: type[Strict] = Strict) -> Iterator[type[Strict]]:
    """Yield every model of the YAML files."""
    for model in base.__subclasses__():
        yield model
        yield from models(model)


def table(name: str) -> str:
    """Return the markdown table of a model's keys.

    Those that a step shares with every other are left out: `FineTune` has its own table.
    """
    (model,) = {model for model in models() if model.__name__ == name}
    schema = model.model_json_schema()
    shared = FineTune.model_json_schema()["properties"] if model is not FineTune else {}
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        if (key == "method" and "const" in value) or shared.get(key) == value:
            continue
        page = (
            f"[`{key}`]({PAGE_OF[key]}.md)" if model is Pipeline and key in PAGE_OF else f"`{key}`"
        )
        cells = [page, _type(value), _default(key, value, schema), value["description"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type(value: dict[str, Any]) -> str:
    if "enum" in value or "const" in value:
        return ", ".join(f"`{option}`" for option in value.get("enum", [value.get("const")]))
    options = value.get("anyOf") or value.get("oneOf") or []
    if options:
        names = [_type(option) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(name for name in names if name))
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}".removesuffix(" of ")
    if "$ref" in value or value.get("type") == "object":
        return "mapping"
    return TYPES.get(value.get("type", ""), "")


def _default(key: str, value: dict[str, Any], schema: dict[str, Any]) -> str:
    if key in schema.get("required", []):
        return "required"
    default = value.get("default")
    if (isinstance(default, dict) and default) or "efault:" in value["description"]:
        return ""
    return "none" if default in (None, [], {}, "") else f"`{json.dumps(default)}`".replace('"', "")


def renewed(text: str) -> str:
    """Return a page with its tables as the code has them."""
    return BLOCK.sub(lambda match: f"{match[1]}{table(match[2])}{match[3]}", text)


if __name__ == "__main__":
    schema_text("device")  # Imports every model.
    for page in Path(str(PAGES)).rglob("*.md"):
        page.write_text(renewed(page.read_text()))
