"""Layer sensitivities in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from edgesparse.methods.choosing.curves import Proposal, Sensitivity
from edgesparse.report.rich_text import add_columns, plain_table, print_line, safe_text
from edgesparse.report.units import metric_text, percent_text


def print_sensitivity(
    variant: str,
    sensitivity: Sensitivity,
    max_accuracy_drop: float,
    proposal: Proposal | None,
    console: Console,
) -> None:
    """Print the metric with each layer pruned alone, and the proposed sparsities.

    Args:
        max_accuracy_drop: largest loss of the metric that the proposal accepts, in its unit (a
            share of 1 for percent).
        proposal: None where no sparsity keeps the metric.
    """
    metric, unit = sensitivity.metric, f" {sensitivity.unit}".rstrip()

    def text(value: float) -> str:
        return metric_text(sensitivity.value(value), sensitivity.unit)

    print_line(
        console,
        f"{variant}: {metric} {text(sensitivity.accuracy)}{unit} on validation data; with one "
        "layer pruned, without training:",
        "bold",
    )
    sparsities: Mapping[str, float] = proposal.sparsities if proposal is not None else {}
    table = plain_table()
    table.add_column("layer", overflow="fold")
    levels = [f"{level:.0%}" for level in sensitivity.levels]
    add_columns(table, ["pattern", "weights", *levels, "proposed"], left=["pattern"])
    for layer in sensitivity.layers:
        styles = [
            "green" if sensitivity.keeps(value, max_accuracy_drop) else "red"
            for value in layer.accuracy
        ]
        table.add_row(
            safe_text(layer.name),
            layer.pattern,
            f"{layer.size:,}",
            *map(safe_text, map(text, layer.accuracy), styles),
            f"{sparsities[layer.name]:.0%}" if layer.name in sparsities else "-",
        )
    console.print(table)
    if proposal is None:
        print_line(console, f"no proposal: no sparsity keeps {metric} without training", "yellow")
        return
    size = sum(layer.size for layer in sensitivity.layers)
    zeros = sum(sparsities[layer.name] * layer.size for layer in sensitivity.layers)
    print_line(
        console,
        f"proposed: {percent_text(zeros / max(1, size))} % sparsity over all layers, {metric} "
        f"{text(proposal.accuracy)}{unit} before fine-tuning (maximum drop "
        f"{metric_text(max_accuracy_drop, sensitivity.unit)})",
        "green",
    )
