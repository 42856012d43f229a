"""Fields and types that the steps of a `sparsify` share; patterns of zeros in a kernel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict

Block = Literal["block-1x2", "block-1x4", "block-1x16", "block-2x4", "block-4x4"]
Pattern = Literal[
    "unstructured", "block-1x2", "block-1x4", "block-1x16", "block-2x4", "block-4x4", "2:4"
]
BLOCKS: tuple[Block, ...] = get_args(Block)
Distribution = Literal["uniform", "global", "erk", "lamp"]
"""How zeros are distributed over layers; see methods/network/keep_mask.py."""
_BLOCK = re.compile(r"block-(\d+)x(\d+)")


def block_shape(pattern: str) -> tuple[int, int]:
    """Return the (outputs, inputs) of a pattern's blocks: (1, 1) for single weights, (1, 4) for the
    fours of 2:4, two of which stay.

    A block lies in one position of a convolution's kernel, along its channels; at the edge of a
    kernel that it does not divide, a block is smaller.

    >>> block_shape("block-2x4")
    (2, 4)
    """
    if pattern == "2:4":
        return 1, 4
    match = _BLOCK.fullmatch(pattern)
    return (int(match[1]), int(match[2])) if match else (1, 1)


def expected_zeros(pattern: str, sparsity: float) -> tuple[float, tuple[int, int]]:
    """Return the share of zeros in a kernel and the (outputs, inputs) of blocks that are all zero:
    of 2:4, which ignores the sparsity, half of the weights, one by one."""
    return (0.5, (1, 1)) if pattern == "2:4" else (sparsity, block_shape(pattern))


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
Kept = Annotated[float, Field(gt=0.0, lt=1.0)]


def shorthand(key: str) -> BeforeValidator:
    """Let `key: text` stand for `key: {name: text}`."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value,
        json_schema_input_type=Any,
    )


def matches(globs: str | Iterable[str], names: Iterable[str]) -> bool:
    """Return True where one of the globs matches one of the names."""
    patterns = [globs] if isinstance(globs, str) else list(globs)
    return any(fnmatchcase(name, glob) for name in names for glob in patterns)


class Schedule(Strict):
    """Schedule of sparsity in fine-tuning; all three numbers are fractions of its steps."""

    name: Literal["constant", "polynomial"] = Field(
        "polynomial",
        description="constant: the final sparsity from `begin` on; polynomial: growing to `end`.",
    )
    begin: Fraction = Field(0.0, description="Where pruning starts.")
    end: Fraction = Field(0.6, description="Where the final sparsity is reached.")
    frequency: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.05, description="Interval between updates of the mask."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Schedule:
        if self.end <= self.begin:
            raise PydanticCustomError("order", "'end' must be greater than 'begin'")
        return self


class Distill(Strict):
    """Fine-tuning towards the outputs of the dense model (Hinton et al. 2015, arXiv 1503.02531)."""

    teacher: Literal["dense"] = Field(
        "dense", description="The teacher: the trained model before its first step."
    )
    weight: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Weight of the teacher's term in the loss; 1: targets are not used.",
    )
    temperature: float = Field(
        4.0, gt=0, le=1000, description="Divisor of the logits of classes, which softens them."
    )


def _default_distill(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Distillation = Annotated[
    Distill | None,
    BeforeValidator(_default_distill, json_schema_input_type=bool | Distill | None),
]
"""Distillation of a fine-tuning; `true` stands for the defaults."""


def require_epochs(distill: Distill | None, epochs: int) -> None:
    """Raise an error for distillation without fine-tuning."""
    if distill is not None and not epochs:
        raise PydanticCustomError("distill", "'distill' requires 'epochs' of at least 1")


class FineTune(Strict):
    """Training after a change of the weights."""

    epochs: int = Field(5, ge=0, le=100_000, description="Epochs; 0: no fine-tuning.")
    learning_rate: float | None = Field(
        None, gt=0, description="Default: a third of train.learning_rate."
    )
    batch_size: int | None = Field(
        None, ge=1, le=65_536, description="Samples per training step; default: train.batch_size."
    )
    distill: Distillation = Field(
        None, description="Fine-tune towards the dense model's outputs: true, or a mapping."
    )

    @model_validator(mode="after")
    def _distills_in_training(self) -> FineTune:
        require_epochs(self.distill, self.epochs)
        return self
