"""Saved models that a pipeline names: files of Keras, and SavedModel folders."""

from __future__ import annotations

from pathlib import Path

from edgesparse.spec.code.snapshot import is_file
from edgesparse.spec.code.sources import shown
from edgesparse.spec.pipeline import ModelSource

SUFFIXES = (".keras", ".h5", ".hdf5")
_GRAPH = "saved_model.pb"


def is_saved(model: ModelSource) -> bool:
    """Whether it is named as a file or folder, and not as a function."""
    ref = model.ref
    return ref is not None and (ref.endswith(SUFFIXES) or (":" not in ref and ".py" not in ref))


def is_folder(model: ModelSource, base: Path) -> bool:
    """Whether it is a SavedModel: a graph without layers."""
    return is_saved(model) and is_file(base / str(model.ref) / _GRAPH)


def saved_model_problems(model: ModelSource, base: Path) -> list[tuple[str, str]]:
    """What is wrong with a saved model, by the key that says so."""
    assert model.ref is not None
    found = []
    if not is_file(base / model.ref) and not is_folder(model, base):
        if model.ref.endswith(SUFFIXES):
            said = f"no file {shown(model.ref)} beside the YAML file"
        else:
            said = (
                f"{shown(model.ref)} is no SavedModel folder and no .keras or .h5 file; for a "
                "function write file.py:function"
            )
        found.append(("ref", said))
    elif is_file(base / model.ref) and not model.ref.endswith(SUFFIXES):
        said = f"{shown(model.ref)} is no saved Keras model: .keras and .h5 files are"
        found.append(("ref", said))
    if model.args:
        found.append(("args", "a saved model takes no args"))
    if model.weights is not None:
        found.append(("weights", "a saved model has weights; name the function that builds it"))
    return found
