"""Task resolution: infers the task from model and data, and checks that they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgesparse.spec.errors import UsageError
from edgesparse.spec.task import TaskSpec


@dataclass(frozen=True)
class Output:
    """An output of a model: `shape` without the batch; the name of its last layer's activation."""

    name: str
    shape: tuple[int | None, ...]
    activation: str


@dataclass(frozen=True)
class Target:
    """A target of a dataset: `shape` of one sample's; `binary`: all values are 0 or 1; `is_input`:
    it is the model's input; `lowest` is its lowest integer."""

    name: str
    shape: tuple[int | None, ...]
    integer: bool
    binary: bool = False
    is_input: bool = False
    lowest: int = 0


def resolve(
    spec: TaskSpec, output: Output, target: Target, classes: Sequence[str], logits: bool | None
) -> dict[str, Any]:
    """Return the task of one output as plain data, from which it is built again.

    Args:
        spec: the task in the pipeline; without a name it is inferred.
        classes: class names of the data.
        logits: whether outputs are logits; None: inferred from the activation of the last layer.

    Raises:
        UsageError: the model does not fit the data, or the task does not fit them.
    """
    if spec.ref is not None:
        return {"name": "ref", "ref": spec.ref, "args": spec.args}
    name = spec.name if spec.name not in (None, "auto") else _infer(output, target)
    assert name is not None
    resolved: dict[str, Any] = {"name": name}
    if name in ("classification", "segmentation", "multi-label"):
        inferred = output.activation not in ("softmax", "sigmoid")
        resolved["logits"] = inferred if logits is None else logits
    if name == "classification":
        resolved |= _classification(output, target, classes)
        if spec.top_k is not None:
            resolved["top_k"] = spec.top_k
    elif name == "segmentation":
        resolved |= _segmentation(output, target, classes)
    elif name == "multi-label":
        if output.shape != target.shape or not target.binary:
            raise UsageError(_mismatch(output, target, "multi-label needs 0 or 1 for each label"))
    elif name == "reconstruction" and target.integer and not target.shape:
        resolved["labels"] = True
    elif name in ("regression", "reconstruction") and not _match(output.shape, target.shape):
        raise UsageError(_mismatch(output, target, f"{name} needs one number for each output"))
    if name == "reconstruction" and spec.peak is not None:
        resolved["peak"] = spec.peak
    return resolved


def _infer(output: Output, target: Target) -> str:
    if target.is_input:
        return "reconstruction"
    if target.integer and not target.shape:
        return "classification"
    width = output.shape[-1] if output.shape else 1
    if target.integer and len(target.shape) >= 2:
        return "segmentation"
    if target.binary and len(target.shape) == 1 and output.shape == target.shape:
        # One class of several, as softmax outputs it, or any number of labels.
        return "classification" if output.activation == "softmax" and width != 1 else "multi-label"
    return "regression"


def _classification(output: Output, target: Target, classes: Sequence[str]) -> dict[str, Any]:
    one_hot = len(target.shape) == 1 and target.shape != (1,)
    count = len(classes)
    if one_hot:
        count = int(target.shape[0] or 0)
        classes = classes if len(classes) == count else [str(i) for i in range(count)]
    if output.shape == (1,) and count <= 2:
        return {"classes": list(classes), "binary": True, "one_hot": False}
    if output.shape != (count,):
        hint = "it must output one value per class" + (", or one for two" if count == 2 else "")
        if output.shape == (count - 1,) and target.lowest == 1:
            hint = "labels begin at 1, but must count from 0: use y - 1"
        raise UsageError(
            f"the model outputs {list(output.shape)} but the data has {count} classes; {hint}"
        )
    return {"classes": list(classes), "binary": False, "one_hot": one_hot}


def _segmentation(output: Output, target: Target, classes: Sequence[str]) -> dict[str, Any]:
    pixels = target.shape[:-1] if target.shape[-1:] == (1,) else target.shape
    count, width = len(classes), output.shape[-1]
    if len(output.shape) != len(pixels) + 1 or not _match(output.shape[:-1], pixels):
        raise UsageError(_mismatch(output, target, "segmentation needs a class for each pixel"))
    if width != count and not (width == 1 and count <= 2):
        raise UsageError(
            f"the model outputs {width} values per pixel but the masks have {count} classes"
        )
    return {"classes": list(classes), "binary": width == 1}


def _match(output: tuple[int | None, ...], target: tuple[int | None, ...]) -> bool:
    equal = len(output) == len(target) and all(
        o is None or t is None or o == t for o, t in zip(output, target, strict=True)
    )
    return equal or (output == (1,) and target == ())


def _mismatch(output: Output, target: Target, requirement: str) -> str:
    kind = "integers" if target.integer else "floats"
    return (
        f"the model outputs {list(output.shape)} but the targets are {kind} of shape "
        f"{list(target.shape)}; {requirement}; set 'task' to choose another"
    )


def describe(resolved: Mapping[str, Any]) -> str:
    """Return a short description of a resolved task, for `plan`."""
    if "outputs" in resolved:
        return "; ".join(f"{name}: {describe(task)}" for name, task in resolved["outputs"].items())
    if resolved["name"] == "ref":
        return str(resolved["ref"])
    parts = [str(resolved["name"])]
    if "classes" in resolved:
        parts.append(f"{len(resolved['classes'])} classes")
    if "logits" in resolved:
        logits = "from one logit" if resolved.get("binary") else "from logits"
        parts.append(logits if resolved["logits"] else "from probabilities")
    return ", ".join(parts)
