"""Writes results.schema.json and the key tables of its page from the models of results.

python -m tests.tools.results_reference
"""

from __future__ import annotations

import json
from typing import Any

from edgesparse.docs import PAGES
from edgesparse.measure import results

SCHEMA = results.Path(results.__file__).with_name("results.schema.json")
REFERENCE = PAGES / "reference" / "results.md"
HEADING = "\n## Keys\n"


def tables() -> str:
    """Markdown of one table per object, in the order in which they are first used."""
    schema = json.loads(results.schema_text())
    objects: dict[str, Any] = {"Results": schema}
    queue = ["Results"]
    for name in queue:
        for key in objects[name]["properties"].values():
            for other in _references(key):
                if other not in objects:
                    objects[other] = schema["$defs"][other]
                    queue.append(other)
    return "".join(_table(name, objects[name]) for name in queue)


def _table(name: str, model: dict[str, Any]) -> str:
    lines = [
        f"\n### {name}\n",
        f"{_line(model['description'])}\n",
        "| key | type | |",
        "|---|---|---|",
    ]
    for key, value in model["properties"].items():
        lines.append(f"| `{key}` | {_type(value)} | {_line(value.get('description', ''))} |")
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"])
    if "enum" in value:
        return " or ".join(f'"{option}"' for option in value["enum"])
    if "prefixItems" in value:
        return f"[{', '.join(_type(item) for item in value['prefixItems'])}]"
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}"
    if isinstance(value.get("additionalProperties"), dict):
        return f"object of {_type(value['additionalProperties'])}"
    return str(value.get("type", "any"))


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    if not isinstance(value, dict):
        return []
    direct = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
    return direct + [name for item in value.values() for name in _references(item)]


def reference(text: str) -> str:
    """The document with its tables renewed."""
    return text.partition(HEADING)[0] + HEADING + tables()


if __name__ == "__main__":
    SCHEMA.write_text(results.schema_text() + "\n")
    REFERENCE.write_text(reference(REFERENCE.read_text()))
