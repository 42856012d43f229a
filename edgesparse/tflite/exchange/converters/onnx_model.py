"""Converts ONNX files by onnx2tf."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesparse.tflite.exchange.converters.answers import (
    IMAGE_RANKS,
    SEED,
    RefusedError,
    answers,
    cause_of,
)


def from_onnx(
    source: Path, target: Path, samples: str, external: Sequence[str] = ()
) -> dict[str, Any]:
    """Convert an ONNX file; like `from_torch`.

    Args:
        external: names of the files beside it that may have its weights.
    """
    import numpy as np
    import onnx2tf
    import onnxruntime

    model = _load_onnx(source, external)
    weights = {tensor.name for tensor in model.graph.initializer}
    entries = [entry for entry in model.graph.input if entry.name not in weights]
    shapes = [(entry.name, _fixed_shape(entry, source), _dtype(entry)) for entry in entries]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def answer(values: Sequence[Any]) -> list[Any]:
        fed = {name: value for (name, _, _), value in zip(shapes, values, strict=True)}
        return list(session.run(None, fed))

    references = answers(shapes, [o.name for o in model.graph.output], answer, samples)
    fixed = {name: shape for name, shape, _ in shapes}
    for number, name in enumerate(references["outputs"]):
        fixed[name] = references["arrays"][f"output/{number}"].shape[1:]
    model = _with_constant_shapes(model, fixed, target)
    # Without it, conversion of images would fetch photos from the internet to compare answers.
    random = np.random.default_rng(SEED).random((20, 128, 128, 3), "float32")
    onnx2tf.onnx2tf.download_test_image_data = lambda: random
    folder = target.parent / "onnx2tf"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            onnx2tf.convert(
                onnx_graph=model,
                output_folder_path=str(folder),
                copy_onnx_input_output_names_to_tflite=True,
                batch_size=1 if any(shape[:1] == (1,) for _, shape, _ in shapes) else None,
                not_use_onnxsim=True,
                keep_shape_absolutely_input_names=[
                    name for name, shape, _ in shapes if len(shape) not in IMAGE_RANKS
                ]
                or None,
                non_verbose=True,
            )
    except SystemExit as ended:
        raise RefusedError(f"onnx2tf: {_printed_error(printed.getvalue())}") from ended
    (written,) = folder.glob("*_float32.tflite")
    written.rename(target)
    shutil.rmtree(folder)
    return references


def _load_onnx(source: Path, external: Sequence[str]) -> Any:
    import onnx

    try:
        _refuse_external(onnx.load(source, load_external_data=False), source, external)
        model = onnx.load(source)
        onnx.checker.check_model(model)
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(f"not a valid ONNX file: {cause_of(error)}") from error
    return model


def _refuse_external(model: Any, source: Path, external: Sequence[str]) -> None:
    """Refuse weights in other files than those whose changes are noticed."""
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    for tensor in filter(uses_external_data, _get_all_tensors(model)):
        location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        if location not in external:
            missing = not (source.parent / location).is_file()
            raise RefusedError(
                f"its weights are in {location!r}, "
                + ("which does not exist" if missing else f"not in '{source.stem}...data'")
                + "; write them beside it, in Python: onnx.save_model(onnx.load("
                f"{source.name!r}), {source.name!r}, save_as_external_data=True, "
                f"location='{source.name}.data')"
            )


def _with_constant_shapes(model: Any, shapes: Mapping[str, Sequence[int]], target: Path) -> Any:
    """Return a model whose inputs and outputs, by name, and all between have constant shapes."""
    import onnx
    import onnxruntime

    fixed, path = onnx.ModelProto(), target.with_suffix(".onnx")
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for entry in (*fixed.graph.input, *fixed.graph.output):
        if entry.name in shapes:
            entry.type.tensor_type.shape.Clear()
            for size in shapes[entry.name]:
                entry.type.tensor_type.shape.dim.add().dim_value = size
    options = onnxruntime.SessionOptions()
    # More would use operators that are the runtime's own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    try:
        onnxruntime.InferenceSession(
            fixed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        # onnx2tf flattens and reshapes by the shapes in the file.
        return onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    finally:
        path.unlink(missing_ok=True)


def _fixed_shape(entry: Any, source: Path) -> tuple[int, ...]:
    """Return an input's shape; a dynamic batch is 1."""
    shape: list[int] = []
    for axis, size in enumerate(entry.type.tensor_type.shape.dim):
        if not size.dim_value and axis:
            name = size.dim_param or f"of axis {axis}"
            words = ["--dim_param", name, "--dim_value", "224"]
            if not size.dim_param:
                words = ["--input_name", entry.name, "--input_shape", "1,3,224,224"]
            raise RefusedError(
                f"input {entry.name} has the dynamic size {name}; fix it: pip install onnx "
                "onnxruntime, then: python -m onnxruntime.tools.make_dynamic_shape_fixed "
                f"{shlex.join([*words, str(source), 'fixed.onnx'])}"
            )
        shape.append(size.dim_value or 1)
    return tuple(shape)


def _dtype(entry: Any) -> Any:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)


def _printed_error(text: str) -> str:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return errors[0].removeprefix("ERROR:").strip() if errors else "the conversion failed"
