"""Text for people: which nodes of a file the delegate took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

Node = tuple[str, str, str]
"""An operator's name, "taken" or "left", and the reason for leaving it."""


def summarize(nodes: Iterable[Node]) -> str:
    """Count the nodes of a file that the delegate runs, and say why not the others."""
    listed = list(nodes)
    left = Counter((_named(name), reason) for name, state, reason in listed if state != "taken")
    text = f"delegate edgesparse runs {len(listed) - left.total()} of {len(listed)} nodes"
    if not left:
        return text
    parts = (
        f"{f'{count} ' if count > 1 else ''}{name} ({reason})"
        for (name, reason), count in left.items()
    )
    return f"{text}; not {', '.join(parts)}"


def _named(operator: str) -> str:
    """Name an operator that the library knows by its number only."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    names: dict[str, str] = {
        f"operator {number}": name for name, number in vars(BuiltinOperator).items()
    }
    return names.get(operator, operator)
