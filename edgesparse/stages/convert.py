"""From a Keras model to .tflite bytes with dense storage, and answers to hold it against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edgesparse.devices.agent.samples import save_golden
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant
from edgesparse.stages import quantize
from edgesparse.stages.base.artifacts import save_tflite, write_json
from edgesparse.stages.base.stage import DATA_LIBRARIES, TOOLKIT_LIBRARIES, StageContext, StageKind
from edgesparse.stages.preflight import INTEGER
from edgesparse.tflite.format.precision import in_half_precision
from edgesparse.tflite.runtimes.compatibility import Profile, needs_one_scale

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from edgesparse.methods.training.recipe import Recipe

DIAGNOSIS, NETWORK = "diagnosis.json", "network.json"
_USED, _SEEN, _USED_BYTES = 128, 1000, 32_000_000
"""Training samples of which it is looked what the network uses, and how right it is."""


def key_inputs(
    data: Mapping[str, Any], variant: Variant, golden: int, profiles: Iterable[Profile]
) -> dict[str, Any]:
    """Return what the result depends on: the data of calibration and `golden` samples; of the
    runtimes only whether one of them supports no scales per channel."""
    half = {"compute": "f16"} if variant.quantize.compute == "f16" else {}
    biases = {"bias_correction": True} if variant.corrects_biases else {}
    return {
        **half,
        **biases,
        "data": data,
        "scheme": variant.quantize.scheme,
        "calibration_samples": variant.quantize.calibration_samples,
        "golden": golden,
        # Sparse int8 kernels know one scale only: said here, since a file that is stored densely
        # in the end must still be the one that was compared.
        "one_scale": variant.has_zeros or needs_one_scale(profiles, variant.quantize.numbers),
    }


def run(context: StageContext) -> None:
    """Leave dense.tflite, model.json and golden.npz; see devices/measuring/samples.py."""
    from edgesparse import data
    from edgesparse.methods.training.recipe import answers

    spec, dataset = context.stage.spec, context.plan.dataset
    model = quantize.read(context)
    # Other schemes need no ranges, and samples can be large.
    count = spec["calibration_samples"] if spec["scheme"] in INTEGER else 1
    calibration = data.representative(dataset, count)
    representative = [calibration[name] for name in context.plan.recipe.inputs]
    content, notes = _converted(context, model, representative)
    save_tflite(content, context.folder, "dense")
    # Not from training data, which calibration has seen, nor from test data, which must stay
    # unseen.
    x, _ = data.arrays(dataset.validation, spec["golden"])
    recipe = context.plan.recipe
    ordered = {name: x[given] for name, given in zip(model.input_names, recipe.inputs, strict=True)}
    save_golden(
        context.folder / "golden.npz", ordered, answers(partial(model, training=False), x, recipe)
    )
    write_json(context.folder / NETWORK, {**_network(context, model, recipe), "notes": notes})
    if spec["scheme"] not in ("f32", "f16"):
        _diagnose(context, content, model, list(ordered.values()))


def _converted(
    context: StageContext, model: tf.keras.Model, representative: list[np.ndarray[Any, Any]]
) -> tuple[bytes, list[str]]:
    """The file, and what is to be said of sizes that the data leaves open: the file does, too,
    where the model's layers can."""
    from edgesparse.tflite import convert

    spec, inputs = context.stage.spec, context.plan.recipe.inputs
    named = context.plan.open_inputs

    def made(shapes: Sequence[tuple[int | None, ...] | None]) -> bytes:
        scheme, one_scale = spec["scheme"], spec["one_scale"]
        content = convert.convert(
            model, scheme, representative, one_scale=one_scale, open_shapes=shapes
        )
        return in_half_precision(content) if "compute" in spec else content

    def fixed(notes: list[str]) -> tuple[bytes, list[str]]:
        content = made(())
        if "bias_correction" not in spec:
            return content, notes
        exact = convert.convert(model, "f32", representative)
        given = dict(zip(model.input_names, representative, strict=True))
        corrected, told = _with_biases(exact, content, given)
        return corrected, [*notes, told]

    if not named:
        return fixed([])
    sizes = context.pipeline.benchmark.input_shapes
    told = " and ".join(f"{name} of {'x'.join(map(str, sizes[name]))}" for name in named)
    try:
        found = made([named.get(name) for name in inputs])
    except EdgesparseError as error:
        reason = str(error).removeprefix(convert.CONVERSION_FAILED)
        return fixed([f"the file takes {told} and nothing else: {reason}"])
    notes = [f"sizes stay open in the file; measured with {told}"]
    if "bias_correction" in spec:
        notes.append("biases are not corrected in a file whose sizes are open")
    return found, notes


def _with_biases(
    exact: bytes, content: bytes, samples: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[bytes, str]:
    """The file with corrected biases, and what that brought."""
    import numpy as np

    from edgesparse.spec.safe.temporary import temporary_folder
    from edgesparse.tflite.bias_correction import correct_biases

    with temporary_folder() as folder:
        files = [folder / name for name in ("exact.tflite", "int8.tflite", "x.npz", "out.tflite")]
        files[0].write_bytes(exact)
        files[1].write_bytes(content)
        np.savez(files[2], **samples)
        try:
            done = correct_biases(*files)
        except EdgesparseError as error:
            return content, f"biases stay as they were converted: {error}"
        moved = f"answers are {done.before:.2%} of their range from the float model's"
        if done.after < done.before:
            found = f"biases of {done.layers} layers are corrected: {moved} without, "
            return files[3].read_bytes(), f"{found}{done.after:.2%} with it"
        return content, f"bias correction brings nothing: {moved} without, {done.after:.2%} with it"


def _network(context: StageContext, model: tf.keras.Model, recipe: Recipe) -> dict[str, Any]:
    """What of the network one inference uses, and its metrics on what it was trained on."""
    from edgesparse import data
    from edgesparse.methods.training.recipe import evaluate
    from edgesparse.tflite.usage import usage

    dataset = context.plan.dataset
    one = data.representative(dataset, 1)
    size = sum(values.nbytes for values in one.values())
    given = data.representative(dataset, max(1, min(_USED, _USED_BYTES // size)))
    seen = dataset.train
    count = min(seen.count, _SEEN)
    trained = evaluate(model, data.Split(count, seen.samples.take(count)), recipe)
    return {**usage(model, [given[name] for name in recipe.inputs]), "trained": trained}


def _diagnose(
    context: StageContext, content: bytes, model: tf.keras.Model, x: Sequence[np.ndarray[Any, Any]]
) -> None:
    """Leave diagnosis.json, while the Keras model is here: to be said if the file answers wrong."""
    from edgesparse.tflite.diagnose import diagnose

    try:
        found = diagnose(content, model, x)
    except (ValueError, RuntimeError, TypeError):
        return  # A help, and no more: whether the file is right is asked of the device.
    if found:
        write_json(context.folder / DIAGNOSIS, found)


KIND = StageKind("convert", 6, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
