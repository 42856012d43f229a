"""Commands on model files: bench, inspect, encode, compress."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    DEVICES,
    FAILED,
    JSON,
    NETWORK_SHAPES,
    NOTES,
    PORT,
    QUICK,
    SERVE,
    WEIGHTS,
    device_option,
    emit,
    exit_code,
    say,
)


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@DEVICES
@click.option("--threads", multiple=True, type=click.IntRange(1, 256), default=(1,))
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="[NAME=]1x224x224x3",
    help="Shape of a dynamic input, or of a PyTorch network's input; repeatable.",
)
@WEIGHTS
@click.option(
    "--delegate",
    "delegates",
    multiple=True,
    type=click.Choice(["xnnpack", "edgesparse"]),
    help="Delegate to use instead of the device file's; repeatable: measured in turns.",
)
@click.option("--layers", is_flag=True, help="Measure each layer alone, too; the page shows them.")
@QUICK
@SERVE
@PORT
@NOTES
@JSON
def bench(
    models: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    shapes: tuple[str, ...],
    weights: Path | None,
    delegates: tuple[str, ...],
    layers: bool,
    quick: bool,
    serve: bool,
    port: int | None,
    notes: bool,
    as_json: bool,
) -> None:
    """Measure .tflite, .pt2 and .onnx files; ratios refer to the first.

    A PyTorch network is FILE.py:FUNCTION, with --weights and --input-shape.
    """
    from edgesparse.cli.console import finish_run, open_project
    from edgesparse.cli.page_server import live_page

    with live_page("bench", serve=serve, port=port) as live:
        with open_project(live=live) as project:
            results = project.bench(
                models,
                devices,
                threads=threads,
                input_shapes=shapes,
                delegates=delegates,
                quick=quick,
                layers=layers,
                weights=weights,
            )
        finish_run(project, results, live, as_json=as_json, notes=notes)
    sys.exit(exit_code(results))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", help="Explain for its runtimes which zeros pay, and why others do not.")
@click.option("--samples", help="A .npy or .npz of samples: measure zeros between operators.")
@click.option("--attribution", is_flag=True, help="Show which inputs reach the outputs.")
@click.option("--pipeline", help="A pipeline file, whose data names inputs and outputs.")
@WEIGHTS
@NETWORK_SHAPES
@JSON
def inspect(
    model: Path,
    device: str | None,
    samples: str | None,
    attribution: bool,
    pipeline: str | None,
    weights: Path | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show every weight of a .tflite, .pt2 or .onnx file: its zeros, storage and size.

    A PyTorch network is FILE.py:FUNCTION, with --weights and --input-shape.
    """
    from edgesparse.cli.console import open_project, result_console
    from edgesparse.report.inspection import print_inspection

    with open_project() as project:
        inspection = project.inspect(
            model, device, samples=samples, attribution=attribution, pipeline=pipeline,
            weights=weights, input_shapes=shapes,
        )  # fmt: skip
    emit(as_json, inspection.record, lambda: print_inspection(inspection, result_console()))


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@device_option("Target device.")
@click.option("--runtime", help="Runtime of the device (default: its first).")
@WEIGHTS
@NETWORK_SHAPES
@JSON
def encode(
    source: Path,
    target: Path,
    device: str,
    runtime: str | None,
    weights: Path | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Store the weights of a .tflite file in the format that a device's runtime exploits.

    No value changes; a .pt2 or .onnx file is converted before, as a PyTorch network is:
    FILE.py:FUNCTION, with --weights and --input-shape.
    """
    from edgesparse.cli.console import open_project

    with open_project() as project:
        encoded = project.encode(
            source, target, device, runtime=runtime, weights=weights, input_shapes=shapes
        )
    sparse = sum(decision.form != "dense" for decision in encoded.decisions)
    line = (
        f"{encoded.target}: for {encoded.runtime}, {encoded.bytes_before:,} -> "
        f"{encoded.bytes_after:,} bytes, {sparse} of {len(encoded.decisions)} weights stored sparse"
    )
    lines = [line, *(f"note: {note}" for note in encoded.notes)]
    emit(as_json, dataclasses.asdict(encoded), lines)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path),
    help="A .npz or .npy of samples, with or without labels; or a pipeline file with data.",
)  # fmt: skip
@device_option("Target device.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("compressed.tflite"),
    show_default=True, help="Output file.",
)  # fmt: skip
@click.option(
    "--sparsity", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of zeros (default: 0.7; for a .tflite file the most within --max-error).",
)  # fmt: skip
@click.option(
    "--max-error", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.02,
    show_default=True,
    help="Largest loss of an output of a .tflite file, with its interval; 1: that of the best "
    "constant answer. Of a Keras model without labels: largest loss of accuracy, r2 or f1.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True),
    help="Time after which no more zeros are tried (default: all levels are).",
)  # fmt: skip
@click.option(
    "--builder", metavar="FILE.py:FUNCTION",
    help="Of an .h5 file of Keras with weights only: the function that builds its model.",
)  # fmt: skip
@WEIGHTS
@NETWORK_SHAPES
@QUICK
@JSON
def compress(
    model: Path,
    data: Path,
    device: str,
    output: Path,
    sparsity: float | None,
    max_error: float,
    minutes: float | None,
    builder: str | None,
    weights: Path | None,
    shapes: tuple[str, ...],
    quick: bool,
    as_json: bool,
) -> None:
    """Compress a trained model for a device, without training and without labels.

    MODEL is a .keras or .h5 file, a SavedModel folder, or a float .tflite file; a .pt2 file of
    PyTorch and an .onnx file are converted to one, as a PyTorch network is: FILE.py:FUNCTION, with
    --weights and --input-shape, or a pipeline file with a torch model.
    """
    from edgesparse.cli.console import open_project, print_results, write_reports
    from edgesparse.report.units import size_text

    with open_project() as project:
        compressed = project.compress(
            model, data, device, output,
            sparsity=sparsity, max_error=max_error, minutes=minutes, quick=quick,
            weights=weights, input_shapes=shapes, builder=builder,
        )  # fmt: skip
    results = compressed.results

    def show() -> None:
        print_results(results, "table")
        zeros = "" if compressed.sparsity is None else f" with {compressed.sparsity:.0%} zeros"
        say(
            f"wrote {compressed.target}: {compressed.variant}{zeros}, "
            f"{size_text(compressed.bytes_before)} -> {size_text(compressed.bytes_after)}"
        )
        for line in compressed.lost:
            say(f"lost, {line}")

    fields = {f.name: getattr(compressed, f.name) for f in dataclasses.fields(compressed)}
    emit(as_json, {**fields, "results": results.model_dump(mode="json")}, show)
    write_reports(project, results)
    # The file is written: a variant that failed is a row of the table.
    sys.exit(FAILED if results.failures else 0)
