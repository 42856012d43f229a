"""What of a model's inputs and activations matters, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from edgesparse.report.console import shown
from edgesparse.report.table import percent_text
from edgesparse.tflite.format.graph import label

if TYPE_CHECKING:
    from edgesparse.tflite.features import Features

NOTICED = 0.01
"""Of what is zero less often nothing is said."""


def print_activations(found: Mapping[str, float], console: Console) -> None:
    """Print how much of what operators give is zero, where it is something."""
    console.print(shown("zeros between operators, over the samples:", style="bold"))
    some = {name: share for name, share in found.items() if share >= NOTICED}
    for name, share in some.items():
        console.print(shown(f"  {percent_text(share):>5} %  {label(name)}"))
    if not some:
        console.print(shown("  none"))


def print_features(
    one: Features, strongest: Mapping[str, Sequence[tuple[str, float]]], console: Console
) -> None:
    """Print how many of an input's values reach the outputs, and the strongest for each."""
    reach, count = int(one.reach.sum()), len(one.reach)
    if not one.followed:
        text = (
            f"{one.name}: its paths cannot be followed; all {count:,} values may reach the outputs"
        )
        console.print(shown(text, style="yellow"))
        return
    text = f"{one.name}: {reach:,} of {count:,} values reach the outputs ({reach / count:.1%})"
    console.print(shown(text, style="bold"))
    for name, found in strongest.items():
        told = ", ".join(f"{value} ({strength:+.2g})" for value, strength in found)
        console.print(shown(f"  {name}: {told}"))
