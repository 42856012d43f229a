"""Saved models that a pipeline names: files of Keras, and SavedModel folders."""

from __future__ import annotations

from pathlib import Path

from edgesparse.spec.code.snapshot import is_file
from edgesparse.spec.code.sources import shown
from edgesparse.spec.pipeline import ModelSource

SUFFIXES = (".keras", ".h5", ".hdf5")
CONVERTED = (".onnx", ".pt2")
"""Files that become .tflite files, which have no layers to train."""
TFLITE = ".tflite"
NOT_CONVERTED = (
    "{} is a torch model, which has no layers to train here; 'deploy', 'run', 'plan' and "
    "'compress' convert it"
)
_GRAPH = "saved_model.pb"


def is_saved(model: ModelSource) -> bool:
    """Return True for a file or folder, False for a function that builds the model."""
    ref = model.ref
    return ref is not None and (
        ref.endswith((*SUFFIXES, TFLITE)) or (":" not in ref and ".py" not in ref)
    )


def is_folder(model: ModelSource, base: Path) -> bool:
    """Return True for a SavedModel: a graph without layers."""
    return is_saved(model) and is_file(base / str(model.ref) / _GRAPH)


def saved_model_problems(model: ModelSource, base: Path) -> list[tuple[str, str]]:
    """Return (key, message) for each mistake in a reference to a saved model."""
    assert model.ref is not None
    problems = []
    if not is_file(base / model.ref) and not is_folder(model, base):
        if model.ref.endswith(SUFFIXES):
            message = f"no file {shown(model.ref)} beside the YAML file"
        else:
            message = (
                f"{shown(model.ref)} is neither a SavedModel folder nor a .keras or .h5 file; for "
                "a function write file.py:function"
            )
        problems.append(("ref", message))
    elif is_file(base / model.ref) and not model.ref.endswith(SUFFIXES):
        message = f"{shown(model.ref)} is not a saved Keras model; use a .keras or .h5 file"
        if model.ref.endswith(CONVERTED):
            message += ", or 'edgesparse compress' and 'bench', which take this file"
        problems.append(("ref", message))
    if model.args:
        problems.append(("args", "a saved model has no args; remove them"))
    if model.weights is not None:
        problems.append(
            ("weights", "a saved model has its weights; for others, name a function as 'ref'")
        )
    return problems
