"""How sensitive each layer is, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from edgesparse.methods.choosing.curves import Proposal, Sensitivity
from edgesparse.report.console import shown
from edgesparse.report.table import metric_text, percent_text


def print_sensitivity(
    variant: str,
    found: Sensitivity,
    max_accuracy_drop: float,
    proposal: Proposal | None,
    console: Console,
) -> None:
    """Print the metric with each layer pruned alone, and the proposal."""

    def text(value: float) -> str:
        return metric_text(found.value(value), found.unit)

    unit = f" {found.unit}" if found.unit else ""
    console.print(
        shown(
            f"{variant}: {found.metric} {text(found.accuracy)}{unit} on the validation samples; "
            "with one layer pruned, untrained:",
            style="bold",
        )
    )
    chosen: Mapping[str, float] = proposal.sparsities if proposal is not None else {}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("pattern", no_wrap=True)
    for title in ("weights", *(f"{level:.0%}" for level in found.levels), "proposed"):
        table.add_column(title, justify="right", no_wrap=True)
    for layer in found.layers:
        table.add_row(
            shown(layer.name),
            layer.pattern,
            f"{layer.size:,}",
            *(
                shown(
                    text(value),
                    style="green" if found.keeps(value, max_accuracy_drop) else "red",
                )
                for value in layer.accuracy
            ),
            f"{chosen[layer.name]:.0%}" if layer.name in chosen else "-",
        )
    console.print(table)
    if proposal is None:
        line = f"no proposal: no sparsity keeps {found.metric} without training"
        console.print(shown(line, style="yellow"))
        return
    size = sum(layer.size for layer in found.layers)
    zeros = sum(chosen[layer.name] * layer.size for layer in found.layers)
    console.print(
        shown(
            f"proposed: {percent_text(zeros / max(1, size))} % zeros in all of them at once, "
            f"{found.metric} {text(proposal.accuracy)}{unit} before any fine-tuning (at most "
            f"{metric_text(max_accuracy_drop, found.unit)} may be lost)",
            style="green",
        )
    )
