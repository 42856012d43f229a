"""Converts programs of torch.export by litert-torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgesparse.tflite.exchange.converters.answers import (
    IMAGE_RANKS,
    RefusedError,
    answers,
    cause_of,
)

_EXPORTED_TO_TRAIN = "call model.eval() before torch.export.export"
_EXPORTED_ON_GPU = "exported on a GPU; call model.cpu() before torch.export.export"


def load(source: Path) -> Any:
    """Load a program of torch.export."""
    import torch

    try:
        program = torch.export.load(source)
    except Exception as error:
        if "CUDA" in str(error):
            raise RefusedError(_EXPORTED_ON_GPU) from error
        raise RefusedError(
            f"not a program of torch.export that torch {torch.__version__} reads: {cause_of(error)}"
        ) from error
    refuse_training(program, _EXPORTED_TO_TRAIN)
    return program


def convert(program: Any, target: Path, samples: str) -> dict[str, Any]:
    """Convert a program of torch.export.

    Inputs and outputs of four and five dimensions become channels last.

    Returns:
        The answers of the original, see `answers`.
    """
    import litert_torch
    import torch

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
    return answers(shapes, [f"output_{number}" for number in range(len(outputs))], answer, samples)


def refuse_training(program: Any, hint: str) -> None:
    """Refuse operators that compute as in training, such as dropout, and buffers that change.

    Args:
        hint: what to do.
    """
    signature = program.graph_signature
    changed = list(signature.buffers_to_mutate.values())
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        arguments = schema.arguments if schema else []
        values = {**dict(zip((a.name for a in arguments), node.args, strict=False)), **node.kwargs}
        if values.get("training") is True or values.get("train") is True:
            raise RefusedError(f"computes as in training; {hint}")
        for argument in arguments:  # Such as self of add_.
            written = getattr(values.get(argument.name), "name", None)
            if argument.alias_info and argument.alias_info.is_write:
                changed += filter(None, [signature.inputs_to_buffers.get(written)])
    if changed:
        raise RefusedError(
            f"the module changes its buffer {changed[0]}: it computes as in training, or keeps a "
            f"state between calls, which a .tflite file does not; {hint}, or make the state an "
            "input and an output"
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
