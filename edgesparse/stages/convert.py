"""Converts a Keras model to a .tflite file with dense storage, and writes golden samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.spec.base import installed_version
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant
from edgesparse.stages import quantize
from edgesparse.stages.base.artifacts import save_tflite, write_json
from edgesparse.stages.base.conversion import to_tflite
from edgesparse.stages.base.stage import DATA_LIBRARIES, TOOLKIT_LIBRARIES, StageContext, StageKind
from edgesparse.stages.preflight import INTEGER
from edgesparse.tflite.format.half_precision import allow_half_precision
from edgesparse.tflite.runtimes.compatibility import Profile, needs_one_scale

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from edgesparse.methods.training.recipe import Recipe

DIAGNOSIS, NETWORK = "diagnosis.json", "network.json"
_USAGE_SAMPLES, _TRAINING_SAMPLES, _USAGE_BYTES = 128, 1000, 32_000_000
"""Training samples for usage, at most this many and this large, and for training metrics."""


def key_inputs(
    data: Mapping[str, Any],
    variant: Variant,
    golden: int,
    profiles: Iterable[Profile],
    *,
    is_file: bool,
) -> dict[str, Any]:
    """Return what the result depends on: the data of calibration and `golden` samples; of the
    runtimes only whether one of them supports no scales per channel; of a .tflite file's
    quantizer its version."""
    half = {"compute": "f16"} if variant.quantize.compute == "f16" else {}
    biases = {"bias_correction": True} if variant.corrects_biases else {}
    quantizer = {"quantizer": installed_version("ai-edge-quantizer")} if is_file else {}
    return {
        **half,
        **biases,
        **quantizer,
        "data": data,
        "scheme": variant.quantize.scheme,
        "calibration_samples": variant.quantize.calibration_samples,
        "golden": golden,
        # Sparse int8 kernels support one scale only. It is set before the storage is chosen, since
        # a densely stored file must be the one that was verified.
        "one_scale": variant.has_zeros or needs_one_scale(profiles, variant.quantize.numbers),
    }


def run(context: StageContext) -> None:
    """Write dense.tflite, model.json, golden.npz (see devices/agent/sample_files.py), network.json,
    and for other than f32 files diagnosis.json."""
    from edgesparse import data
    from edgesparse.methods.training.recipe import predict

    spec, dataset = context.stage.spec, context.plan.dataset
    model = quantize.read(context)
    # Other schemes do not calibrate, and samples can be large.
    count = spec["calibration_samples"] if spec["scheme"] in INTEGER else 1
    calibration = data.representative(dataset, count)
    representative = [calibration[name] for name in context.plan.recipe.inputs]
    content, notes = _converted(context, model, representative)
    save_tflite(content, context.folder, "dense")
    # From validation data: calibration uses training data, and test data must not shape the file.
    x, _ = data.arrays(dataset.validation, spec["golden"])
    recipe = context.plan.recipe
    ordered = {
        name: x[source] for name, source in zip(model.input_names, recipe.inputs, strict=True)
    }
    save_golden(
        context.folder / "golden.npz", ordered, predict(partial(model, training=False), x, recipe)
    )
    networks, inputs = context.plan.networks, context.stage.inputs
    key = inputs.get("quantize") or inputs["model"]
    if key not in networks:
        networks[key] = _network(context, model, recipe)
    write_json(context.folder / NETWORK, {**networks[key], "notes": notes})
    if spec["scheme"] != "f32" or "compute" in spec:
        _diagnose(context, content, model, list(ordered.values()))


def _converted(
    context: StageContext, model: tf.keras.Model, representative: list[np.ndarray[Any, Any]]
) -> tuple[bytes, list[str]]:
    """Convert the model; returns the file and notes on dynamic sizes, which the file keeps where
    the model's layers support them."""
    from edgesparse.tflite import convert

    spec, inputs = context.stage.spec, context.plan.recipe.inputs
    dynamic = context.plan.open_inputs

    def convert_with(shapes: Sequence[tuple[int | None, ...] | None]) -> bytes:
        scheme, one_scale = spec["scheme"], spec["one_scale"]
        content = to_tflite(model, scheme, representative, one_scale=one_scale, open_shapes=shapes)
        return allow_half_precision(content) if "compute" in spec else content

    def with_fixed_sizes(notes: list[str]) -> tuple[bytes, list[str]]:
        content = convert_with(())
        if "bias_correction" not in spec:
            return content, notes
        exact = to_tflite(model, "f32", representative)
        samples_by_name = dict(zip(model.input_names, representative, strict=True))
        corrected, measured_sizes = _with_biases(exact, content, samples_by_name)
        return corrected, [*notes, measured_sizes]

    if not dynamic:
        return with_fixed_sizes([])
    sizes = context.pipeline.benchmark.input_shapes
    measured_sizes = " and ".join(
        f"{name} of {'x'.join(map(str, sizes[name]))}" for name in dynamic
    )
    try:
        content = convert_with([dynamic.get(name) for name in inputs])
    except EdgesparseError as error:
        reason = str(error).removeprefix(convert.CONVERSION_FAILED)
        return with_fixed_sizes([f"the file supports {measured_sizes} only: {reason}"])
    notes = [f"dynamic shapes kept; benchmarked with {measured_sizes}"]
    if "bias_correction" in spec:
        notes.append("bias correction skipped: not supported with dynamic shapes")
    return content, notes


def _with_biases(
    exact: bytes, content: bytes, samples: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[bytes, str]:
    """Correct the biases of a file; returns the file and a note."""
    import numpy as np

    from edgesparse.spec.safe.temporary_folders import temporary_folder
    from edgesparse.tflite.bias_correction import correct_biases

    with temporary_folder() as folder:
        files = [folder / name for name in ("exact.tflite", "int8.tflite", "x.npz", "out.tflite")]
        files[0].write_bytes(exact)
        files[1].write_bytes(content)
        np.savez(files[2], **samples)
        try:
            result = correct_biases(*files)
        except EdgesparseError as error:
            return content, f"bias correction failed: {error}"
        errors = f"output error {result.before:.2%} without, {result.after:.2%} with"
        if result.after < result.before:
            corrected = files[3].read_bytes()
            return corrected, f"bias correction of {result.layers} layers: {errors}"
        return content, f"bias correction skipped: {errors}"


def _network(context: StageContext, model: tf.keras.Model, recipe: Recipe) -> dict[str, Any]:
    """Measure the usage of the network by an inference, and its metrics on training data."""
    from edgesparse import data
    from edgesparse.methods.training.recipe import evaluate
    from edgesparse.tflite.usage import usage

    dataset = context.plan.dataset
    sample = data.representative(dataset, 1)
    size = sum(values.nbytes for values in sample.values())
    samples = data.representative(dataset, max(1, min(_USAGE_SAMPLES, _USAGE_BYTES // size)))
    training = dataset.train
    count = min(training.count, _TRAINING_SAMPLES)
    trained = evaluate(model, data.Split(count, training.samples.take(count)), recipe)
    return {**usage(model, [samples[name] for name in recipe.inputs]), "trained": trained}


def _diagnose(
    context: StageContext, content: bytes, model: tf.keras.Model, x: Sequence[np.ndarray[Any, Any]]
) -> None:
    """Write diagnosis.json, which explains wrong outputs, while the Keras model is loaded."""
    from edgesparse.tflite.diagnose import diagnose

    try:
        trained = context.pipeline.train.epochs > 0
        diagnosis = diagnose(content, model, x, trained=trained)
    except (ValueError, RuntimeError, TypeError):
        return  # Only a help: the device verifies the file.
    if diagnosis:
        write_json(context.folder / DIAGNOSIS, diagnosis)


KIND = StageKind("convert", 7, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
