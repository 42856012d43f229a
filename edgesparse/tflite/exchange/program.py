"""The converters' side: a program for the Python of a converter's environment.

It imports nothing of edgesparse, whose packages that Python may not have. The last line that it
prints is a JSON object.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REFERENCES = 4
"""Random inputs with the original's answers, and as many samples of the user."""
IMAGE_RANKS = (4, 5)
_SEED = 0
_EXPORTED_ON_GPU = "exported on a GPU; call model.cpu() before torch.export.export"


class RefusedError(Exception):
    """A message for the user."""


def from_torch(source: Path, target: Path, samples: str) -> dict[str, Any]:
    """Convert a program of torch.export.

    Inputs and outputs of four and five dimensions become channels last.

    Returns:
        The answers of the original, see `_answers`.
    """
    import litert_torch
    import torch

    try:
        program = torch.export.load(source)
    except Exception as error:
        if "CUDA" in str(error):
            raise RefusedError(_EXPORTED_ON_GPU) from error
        raise RefusedError(
            f"not a program of torch.export that torch {torch.__version__} reads: {_cause(error)}"
        ) from error
    _refuse_training(program)
    module, inputs = program.module(), _torch_inputs(program)
    names = [spec.arg.name for spec in program.graph_signature.input_specs
             if spec.kind.name == "USER_INPUT"]  # fmt: skip

    def answer(values: Sequence[Any]) -> list[Any]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(value) for value in values))
        flat = torch.utils._pytree.tree_flatten(outputs)[0]
        return [output.detach().numpy() for output in flat]

    outputs = answer([value.numpy() for value in inputs])
    last = [number for number, value in enumerate(inputs) if value.ndim in IMAGE_RANKS]
    wrapped = litert_torch.to_channel_last_io(
        module, last, [number for number, value in enumerate(outputs) if value.ndim in IMAGE_RANKS]
    )
    arguments = [
        torch.movedim(value, 1, -1).contiguous() if number in last else value
        for number, value in enumerate(inputs)
    ]
    litert_torch.convert(wrapped, tuple(arguments)).export(str(target))
    shapes = [(name, tuple(v.shape), v.numpy().dtype)
              for name, v in zip(names, inputs, strict=True)]  # fmt: skip
    return _answers(shapes, [f"output_{number}" for number in range(len(outputs))], answer, samples)


def _refuse_training(program: Any) -> None:
    """Refuse operators that compute as in training, such as dropout, and buffers that change."""
    signature = program.graph_signature
    changed = list(signature.buffers_to_mutate.values())
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        arguments = schema.arguments if schema else []
        values = {**dict(zip((a.name for a in arguments), node.args, strict=False)), **node.kwargs}
        if values.get("training") is True or values.get("train") is True:
            raise RefusedError(
                "exported in training mode; call model.eval() before torch.export.export"
            )
        for argument in arguments:  # Such as self of add_.
            written = getattr(values.get(argument.name), "name", None)
            if argument.alias_info and argument.alias_info.is_write:
                changed += filter(None, [signature.inputs_to_buffers.get(written)])
    if changed:
        raise RefusedError(
            f"the module changes its buffer {changed[0]}: it was exported in training mode, or it "
            "keeps a state between calls, which a .tflite file does not; call model.eval() before "
            "torch.export.export, or make the state an input and an output"
        )


def _torch_inputs(program: Any) -> list[Any]:
    """Return the example inputs; a dynamic batch is 1, and other sizes must be constant."""
    import torch

    arguments, named = program.example_inputs or ((), {})
    if named or not arguments or not all(torch.is_tensor(value) for value in arguments):
        raise RefusedError(
            "the module must take tensors, and no keywords: export it with example inputs "
            "(torch.zeros(1, 3, 224, 224),)"
        )
    kinds = program.graph_signature.user_inputs
    shapes = {n.name: n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder"}
    for name in kinds:
        if any(isinstance(size, torch.SymInt) for size in shapes[name][1:]):
            sizes = "x".join(
                "?" if isinstance(size, torch.SymInt) else str(size) for size in shapes[name]
            )
            raise RefusedError(
                f"input {name} has dynamic sizes besides the batch, {sizes}; export it with one "
                "size: torch.export.export(model, (torch.zeros(1, 3, 224, 224),))"
            )
    return [
        value[:1] if value.ndim and isinstance(shapes[name][0], torch.SymInt) else value
        for name, value in zip(kinds, arguments, strict=True)
    ]


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

    answers = _answers(shapes, [o.name for o in model.graph.output], answer, samples)
    fixed = {name: shape for name, shape, _ in shapes}
    for number, name in enumerate(answers["outputs"]):
        fixed[name] = answers["arrays"][f"output/{number}"].shape[1:]
    model = _with_constant_shapes(model, fixed, target)
    # Without it, conversion of images would fetch photos from the internet to compare answers.
    random = np.random.default_rng(_SEED).random((20, 128, 128, 3), "float32")
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
    return answers


def _load_onnx(source: Path, external: Sequence[str]) -> Any:
    import onnx

    try:
        _refuse_external(onnx.load(source, load_external_data=False), source, external)
        model = onnx.load(source)
        onnx.checker.check_model(model)
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(f"not a valid ONNX file: {_cause(error)}") from error
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


def _answers(
    inputs: Sequence[tuple[str, tuple[int, ...], Any]],
    outputs: Sequence[str],
    answer: Callable[[Sequence[Any]], list[Any]],
    samples: str,
) -> dict[str, Any]:
    """Return inputs, random ones and samples, with the original's outputs for them.

    Args:
        inputs: name, shape and dtype of each.
        samples: a .npy or .npz of inputs in their order; empty for none.

    Returns:
        "inputs": name and shape of each; "outputs": their names; "arrays": "input/NUMBER" and
        "output/NUMBER", [references, *shape].
    """
    rows = _random_rows(inputs) + (_sample_rows(inputs, samples) if samples else [])
    import numpy as np

    results = [answer(row) for row in rows]
    arrays = {f"input/{i}": np.stack(v) for i, v in enumerate(zip(*rows, strict=True))}
    arrays |= {f"output/{i}": np.stack(v) for i, v in enumerate(zip(*results, strict=True))}
    described = [{"name": name, "shape": shape} for name, shape, _ in inputs]
    return {"inputs": described, "outputs": list(outputs), "arrays": arrays}


def _random_rows(inputs: Sequence[tuple[str, tuple[int, ...], Any]]) -> list[list[Any]]:
    import numpy as np

    random = np.random.default_rng(_SEED)
    return [
        [
            # Whole numbers may be rows of a table, which has at least two.
            (random.normal(size=shape) if np.dtype(dtype).kind == "f"
             else random.integers(0, 2, shape)).astype(dtype)
            for _, shape, dtype in inputs
        ]
        for _ in range(REFERENCES)
    ]  # fmt: skip


def _sample_rows(
    inputs: Sequence[tuple[str, tuple[int, ...], Any]], samples: str
) -> list[list[Any]]:
    """Return the first samples where they have the inputs' sizes: one that does not fit is an error
    where the samples are used."""
    import numpy as np

    try:
        loaded = np.load(samples, allow_pickle=False)
        arrays = [loaded] if isinstance(loaded, np.ndarray) else None
        if arrays is None:
            names = [name for name, _, _ in inputs]
            names = ["x"] if len(names) == 1 and "x" in loaded.files else names
            if not set(names) <= set(loaded.files):
                return []
            arrays = [loaded[name] for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return []
    fits = all(
        values.shape[1:] == shape[1:] and shape[:1] == (1,)
        for values, (_, shape, _) in zip(arrays, inputs, strict=False)
    )
    if not fits or len(arrays) != len(inputs):
        return []
    count = min(REFERENCES, *(len(values) for values in arrays))
    return [
        [
            values[n : n + 1].astype(dtype)
            for values, (_, _, dtype) in zip(arrays, inputs, strict=True)
        ]
        for n in range(count)
    ]


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def main(text: str) -> None:
    """Convert by the JSON object in `text`: format, source, target, samples, external, path."""
    arguments = json.loads(text)
    sys.path += arguments["path"]
    # Converters print to stdout, also from C++.
    reply_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    source, target, samples = (Path(arguments["source"]), Path(arguments["target"]),
                               arguments["samples"])  # fmt: skip
    name = source.name
    try:
        if arguments["format"] == "torch":
            reply = from_torch(source, target, samples)
        else:
            reply = from_onnx(source, target, samples, arguments["external"])
        import numpy as np

        np.savez(target.with_suffix(".npz"), **reply.pop("arrays"))
    except RefusedError as error:
        reply = {"wrong": f"{name}: {error}"}
    except Exception as error:
        reply = {"wrong": f"{name} cannot be converted: {_cause(error)}"}
    reply_to.write("\n" + json.dumps(reply) + "\n")
    reply_to.flush()


if __name__ == "__main__":
    main(sys.argv[1])
