"""Which task a model and its data are for, where a pipeline does not say, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgesparse.spec.errors import UsageError
from edgesparse.spec.task import TaskSpec


@dataclass(frozen=True)
class Output:
    """Of a model: `shape` without the batch; `activation` of its last layer, by name."""

    name: str
    shape: tuple[int | None, ...]
    activation: str


@dataclass(frozen=True)
class Target:
    """Of a dataset: `shape` of one sample's; `binary`: it has no values but 0 and 1; `is_input`:
    it is what the model is given; `lowest` is its lowest integer."""

    name: str
    shape: tuple[int | None, ...]
    integer: bool
    binary: bool = False
    is_input: bool = False
    lowest: int = 0


def resolve(
    spec: TaskSpec, output: Output, target: Target, classes: Sequence[str], logits: bool | None
) -> dict[str, Any]:
    """A task as plain data, from which it is built again.

    Args:
        logits: what the pipeline says of the outputs; None: recognized from the last layer.

    Raises:
        UsageError: the model does not fit the data, or the task does not fit them.
    """
    if spec.ref is not None:
        return {"name": "ref", "ref": spec.ref, "args": spec.args}
    name = spec.name if spec.name not in (None, "auto") else _guessed(output, target, classes)
    assert name is not None
    found: dict[str, Any] = {"name": name}
    if name in ("classification", "segmentation", "multi-label"):
        recognized = output.activation not in ("softmax", "sigmoid")
        found["logits"] = recognized if logits is None else logits
    if name == "classification":
        found |= _classification(output, target, classes)
        if spec.top_k is not None:
            found["top_k"] = spec.top_k
    elif name == "segmentation":
        found |= _segmentation(output, target, classes)
    elif name == "multi-label":
        if output.shape != target.shape or not target.binary:
            raise UsageError(_misfit(output, target, "multi-label takes 0 or 1 for each label"))
    elif name == "reconstruction" and target.integer and not target.shape:
        found["labels"] = True
    elif name in ("regression", "reconstruction") and not _alike(output.shape, target.shape):
        raise UsageError(_misfit(output, target, f"{name} takes one number for each"))
    if name == "reconstruction" and spec.peak is not None:
        found["peak"] = spec.peak
    return found


def _guessed(output: Output, target: Target, classes: Sequence[str]) -> str:
    if target.is_input:
        return "reconstruction"
    if target.integer and not target.shape:
        return "classification"
    width = output.shape[-1] if output.shape else 1
    if target.integer and len(target.shape) >= 2:
        return "segmentation"
    if target.binary and len(target.shape) == 1 and output.shape == target.shape:
        # One of several, as softmax gives it, or any of them.
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
        hint = "it must give one value per class" + (", or one value for two" if count == 2 else "")
        if output.shape == (count - 1,) and target.lowest == 1:
            hint = "labels begin at 1, and must count from 0: y - 1"
        raise UsageError(
            f"the model gives {list(output.shape)} but the data has {count} classes; {hint}"
        )
    return {"classes": list(classes), "binary": False, "one_hot": one_hot}


def _segmentation(output: Output, target: Target, classes: Sequence[str]) -> dict[str, Any]:
    places = target.shape[:-1] if target.shape[-1:] == (1,) else target.shape
    count, width = len(classes), output.shape[-1]
    if len(output.shape) != len(places) + 1 or not _alike(output.shape[:-1], places):
        raise UsageError(_misfit(output, target, "segmentation takes a class for each pixel"))
    if width != count and not (width == 1 and count <= 2):
        raise UsageError(
            f"the model gives {width} values for each pixel but the masks have {count} classes"
        )
    return {"classes": list(classes), "binary": width == 1}


def _alike(output: tuple[int | None, ...], target: tuple[int | None, ...]) -> bool:
    same = len(output) == len(target) and all(
        o is None or t is None or o == t for o, t in zip(output, target, strict=True)
    )
    return same or (output == (1,) and target == ())


def _misfit(output: Output, target: Target, why: str) -> str:
    kind = "integers" if target.integer else "numbers"
    return (
        f"the model gives {list(output.shape)} but the data's targets are {kind} of shape "
        f"{list(target.shape)}; {why}; set 'task' where another is meant"
    )


def described(resolved: Mapping[str, Any]) -> str:
    """A task in a few words, for `plan`."""
    if "outputs" in resolved:
        parts = [f"{name}: {described(one)}" for name, one in resolved["outputs"].items()]
        return "; ".join(parts)
    if resolved["name"] == "ref":
        return str(resolved["ref"])
    said = str(resolved["name"])
    if "classes" in resolved:
        said += f", {len(resolved['classes'])} classes"
    if "logits" in resolved:
        one = "one " if resolved.get("binary") else ""
        said += (
            f", from {one}logit{'s' * (not one)}" if resolved["logits"] else ", from probabilities"
        )
    return said
