"""Converts models from PyTorch and ONNX to .tflite, and compares their answers.

    python -m edgesparse.tflite.exchange.convert SOURCE FILE ORIGINAL

is the comparison, a program of its own: a runtime can crash its process.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.base import installed_version
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import digest_of, locked, new_folder, replace_bytes, replace_json
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json, run_json_module
from edgesparse.tflite.exchange.converters import program
from edgesparse.tflite.exchange.converters.answers import IMAGE_RANKS
from edgesparse.tflite.exchange.environment import ENVIRONMENTS, Environment, Format
from edgesparse.tflite.exchange.layer_names import name_layers
from edgesparse.tflite.exchange.networks import Network
from edgesparse.tflite.exchange.pt2_check import checked_copy
from edgesparse.tflite.format.signature import (
    TensorSpec,
    dequantize,
    explain_custom,
    quantize,
    read_signature,
)

TOLERANCE = 1e-4
"""Largest difference of an answer, as a share of the spread of the original's answers."""
TIMEOUT_SECONDS = 1800
_ABOUT, _MODULE = "about.json", "edgesparse.tflite.exchange.convert"
# torch.load reads nothing but tensors.
_VARIABLES = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "CUDA_VISIBLE_DEVICES": "-1"}
# The converters' packages may not be beside edgesparse's, of which only they are imported.
_START = """
import importlib, sys, types
root, name, text = sys.argv[1:]
for package in ("edgesparse", "edgesparse.tflite", "edgesparse.tflite.exchange"):
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [root + "/" + package.replace(".", "/")]
importlib.import_module(name).main(text)
"""


@dataclass(frozen=True)
class Input:
    """An input of a model: its shape there, and in the .tflite file, where it has a name, too."""

    name: str
    tflite_name: str
    shape: tuple[int, ...]
    tflite_shape: tuple[int, ...]
    moved: bool
    """Whether the channels are last in the file, and second in the original."""


@dataclass(frozen=True)
class Converted:
    """A converted file; `error` is the largest difference of its answers, `samples` how many were
    compared."""

    path: Path
    inputs: tuple[Input, ...]
    error: float
    samples: int

    @property
    def note(self) -> str:
        moved = [
            f"input {i.tflite_name} is channels last, {'x'.join(map(str, i.tflite_shape))}"
            for i in self.inputs
            if i.moved
        ]
        same = f"answers differ by at most {self.error:.0e} of their spread"
        return "; ".join([f"converted to .tflite: {same}, on {self.samples} inputs", *moved])


def convert(
    source: Path | Network, kind: Format, folder: Path, samples: Path | None = None
) -> Converted:
    """Convert a model to a float .tflite in `folder`, unless it is there from an earlier call.

    Its inputs of four and five dimensions are channels last. A second process waits for the first.

    Args:
        samples: a .npy or .npz of inputs as the original takes them; a few are compared, besides
            random ones.

    Raises:
        UsageError: the converter cannot convert the file; it must be installed.
        EdgesparseError: the answers differ by more than TOLERANCE.
    """
    environment = ENVIRONMENTS[kind]
    path = folder / conversion_key(source, environment, samples)
    if not _is_current(path):
        with locked(folder / "lock"):
            if not _is_current(path):
                shutil.rmtree(path, ignore_errors=True)
                with new_folder(path) as part:
                    _convert(source, environment, part, samples)
    about = json.loads((path / _ABOUT).read_text())
    inputs = tuple(
        Input(i["name"], i["tflite_name"], tuple(i["shape"]), tuple(i["tflite_shape"]), i["moved"])
        for i in about["inputs"]
    )
    return Converted(path / f"{source.stem}.tflite", inputs, about["error"], about["samples"])


def _is_current(path: Path) -> bool:
    """Return whether a conversion is there, and no file that the user's code read has changed."""
    if not path.is_dir():
        return False
    read = json.loads((path / _ABOUT).read_text()).get("read", {})
    return all(Path(file).is_file() and digest_of(Path(file)) == read[file] for file in read)


def conversion_key(source: Path | Network, environment: Environment, samples: Path | None) -> str:
    """Return the name of a conversion's folder: the digest of all that its files depend on."""
    code = sorted(Path(__file__).parent.rglob("*.py"))
    recipe: list[Any] = [source.stem, environment.folder.name]
    if isinstance(source, Network):
        name = f"{source.file.name}:{source.function}"
        target = references.find("models", None, name, source.file.parent, classes=True)
        recipe += [source.function, source.inputs, references.digest(target)]
        # Packages that the user has added.
        recipe += sorted(path.name for path in environment.folder.rglob("*.dist-info"))
        files = [source.weights] if source.weights else []
    else:
        files = [source, *_external(source)]
    recipe += [installed_version("tensorflow")] if environment.shares_ours else []
    recipe += map(digest_of, [*files, *code, *([samples] if samples else [])])
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def _convert(
    source: Path | Network, environment: Environment, part: Path, samples: Path | None
) -> None:
    """Fill the folder of a conversion: the .tflite file, and what is known about it."""
    target = part / f"{source.stem}.tflite"
    arguments = {
        "format": environment.format,
        "target": str(target),
        "samples": str(samples.absolute()) if samples else "",
        "path": environment.imported,
        **(_network(source) if isinstance(source, Network) else _file(source, environment, part)),
    }
    command = converter_command(environment.python, arguments)
    original = run_json(command, str(source), TIMEOUT_SECONDS, environment=_VARIABLES)
    # Some are gone when the converter ends.
    files = [file for file in original.pop("read", []) if Path(file).is_file()]
    read = {file: digest_of(Path(file)) for file in files}
    if environment.format == "torch":
        target.write_bytes(name_layers(target.read_bytes()))
    words = (source, target, json.dumps(original))
    about = run_json_module(_MODULE, words, str(source), TIMEOUT_SECONDS)
    if not about["error"] <= TOLERANCE:  # NaN, too.
        raise EdgesparseError(
            f"{source}: answers of the converted file differ by {about['error']:.1e} of "
            f"their spread ({about['output']}), more than {TOLERANCE:.0e}; "
            f"{environment.converter} converts the model wrongly"
        )
    target.with_suffix(".npz").unlink()
    for copy in part.glob("*.pt2"):
        copy.unlink()
    replace_json(part / _ABOUT, {**about, "read": read})


def converter_command(python: str | Path, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command line of the converters' program in a Python, isolated."""
    root = Path(__file__).parents[3]
    return [str(python), "-I", "-c", _START, str(root), program.__name__, json.dumps(arguments)]


def _network(source: Network) -> dict[str, Any]:
    """Arguments of the converter for a network's code."""
    return {
        "name": f"{source.file.name}:{source.function}",
        "source": str(source.file.absolute()),
        "function": source.function,
        "weights": str(source.weights.absolute()) if source.weights else "",
        "inputs": source.inputs,
    }


def _file(source: Path, environment: Environment, part: Path) -> dict[str, Any]:
    """Arguments of the converter for a file; of a .pt2 it gets a copy of what is harmless."""
    read = source.absolute()
    if environment.format == "torch":
        read = part / f"{source.stem}.pt2"
        checked_copy(source, read)
    external = [path.name for path in _external(source)]
    return {"name": source.name, "source": str(read), "external": external}


def _external(source: Path) -> list[Path]:
    """Return the files of an ONNX model's weights, which can lie beside it."""
    beside = source.parent.glob("*data")
    return sorted(path for path in beside if path.name.startswith(source.stem) and path.is_file())


def converted_samples(converted: Converted, samples: Path) -> Path:
    """Return samples as the converted file takes them, from those that the original takes.

    A file that is not of arrays, or does not fit, is returned unchanged: what uses it says why.
    Members besides the inputs are left out where they cannot be read as arrays.
    """
    arrays = _sample_arrays(converted, samples)
    if arrays is None:
        return samples
    changed = {
        name: np.moveaxis(values, 1, -1)
        if source is not None and source.moved and values.shape[1:] == source.shape[1:]
        else values
        for name, (source, values) in arrays.items()
    }
    target = converted.path.parent / f"samples-{digest_of(samples)[:16]}.npz"
    if not target.exists():
        written = io.BytesIO()
        np.savez(written, **changed)
        replace_bytes(target, written.getvalue())
    return target


def _sample_arrays(
    converted: Converted, samples: Path
) -> dict[str, tuple[Input | None, np.ndarray[Any, Any]]] | None:
    """Load samples by the file's names of inputs; None where an input cannot be read."""
    by_name = {i.name: i for i in converted.inputs}
    single = converted.inputs[0] if len(converted.inputs) == 1 else None
    arrays: dict[str, tuple[Input | None, np.ndarray[Any, Any]]] = {}
    try:
        loaded = np.load(samples, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {single.tflite_name if single else "x": (single, loaded)}
        for name in loaded.files:
            source = by_name.get(name) or (single if name == "x" else None)
            try:
                arrays[source.tflite_name if source else name] = source, loaded[name]
            except ValueError:  # An array of objects.
                if source is not None:
                    return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return arrays


def _compare(path: Path, original: dict[str, Any]) -> dict[str, Any]:
    """Run a file on the original's inputs; return its inputs, and the largest difference."""
    from ai_edge_litert.interpreter import Interpreter

    content = path.read_bytes()
    arrays = np.load(path.with_suffix(".npz"))
    signature = read_signature(content, path.name)
    if (custom := explain_custom(signature.custom)) is not None:
        raise UsageError(f"converted to .tflite, {custom}")
    interpreter = Interpreter(model_content=content)
    inputs = []
    ends = _matched([i["name"] for i in original["inputs"]], signature.inputs)
    for entry, end in zip(original["inputs"], ends, strict=True):
        shape = tuple(entry["shape"])
        moved = len(shape) in IMAGE_RANKS
        expected = (shape[0], *shape[2:], shape[1]) if moved else shape
        if end.shape[1:] != expected[1:]:
            raise UsageError(
                f"input {end.name} of the converted file has shape {end.shape}, not {expected}"
            )
        interpreter.resize_tensor_input(end.index, expected)
        inputs.append({"name": entry["name"], "tflite_name": end.name, "shape": shape,
                       "tflite_shape": expected, "moved": moved})  # fmt: skip
    interpreter.allocate_tensors()
    sources = {d["index"]: d for d in interpreter.get_input_details()}
    targets = {d["index"]: d for d in interpreter.get_output_details()}
    count = len(arrays["input/0"])
    answers: list[list[np.ndarray[Any, Any]]] = [[] for _ in signature.outputs]
    outputs = _matched(original["outputs"], signature.outputs)
    for row in range(count):
        for number, (entry, end) in enumerate(zip(inputs, ends, strict=True)):
            value = arrays[f"input/{number}"][row]
            value = np.moveaxis(value, 1, -1) if entry["moved"] else value
            interpreter.set_tensor(end.index, quantize(value, sources[end.index]))
        interpreter.invoke()
        for number, end in enumerate(outputs):
            answers[number].append(
                dequantize(interpreter.get_tensor(end.index), targets[end.index])
            )
    errors = {
        end.name: _difference(arrays[f"output/{number}"], np.stack(answers[number]))
        for number, end in enumerate(outputs)
    }
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    return {"inputs": inputs, "output": worst, "error": errors[worst], "samples": count}


def _matched(names: Sequence[str], ends: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return a file's inputs or outputs in the original's order: by name, else as they are."""
    if len(names) != len(ends):
        raise UsageError(f"the converted file has {len(ends)} of {len(names)} inputs or outputs")
    by_name = {end.name: end for end in ends}
    if all(name in by_name for name in names):
        return [by_name[name] for name in names]
    return list(ends)


def _difference(expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> float:
    """Largest difference of answers [n, ...], as a share of the spread of what is expected."""
    expected = expected.astype("float64")
    spread = float(expected.max() - expected.min()) or float(np.abs(expected).max()) or 1.0
    layouts = [expected]
    if expected.ndim - 1 in IMAGE_RANKS:
        layouts.append(np.moveaxis(expected, 2, -1))
    differences = [
        float(np.abs(layout - actual.reshape(layout.shape)).max()) / spread
        for layout in layouts
        if layout.size == actual.size
    ]
    return min(differences, default=float("nan"))


def main(source: str, path: str, original: str) -> None:
    print_json_reply(lambda: _compare(Path(path), json.loads(original)), f"{source}: ")


if __name__ == "__main__":
    main(*sys.argv[1:])
