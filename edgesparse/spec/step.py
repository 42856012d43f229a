"""What every step of a `sparsify` shares."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
Kept = Annotated[float, Field(gt=0.0, lt=1.0)]


def shorthand(key: str) -> BeforeValidator:
    """Lets `key: text` stand for `key: {name: text}`."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value,
        json_schema_input_type=Any,
    )


def matches(globs: str | Iterable[str], names: Iterable[str]) -> bool:
    """Whether one of the globs matches one of the names."""
    given = [globs] if isinstance(globs, str) else list(globs)
    return any(fnmatchcase(name, glob) for name in names for glob in given)


class Schedule(Strict):
    """When sparsity grows during the fine-tune; all three are fractions of its steps."""

    name: Literal["constant", "polynomial"] = Field(
        "polynomial",
        description="constant: the final sparsity from `begin` on; polynomial: growing to `end`.",
    )
    begin: Fraction = Field(0.0, description="Where pruning starts.")
    end: Fraction = Field(0.6, description="Where the final sparsity is reached.")
    frequency: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.05, description="How often the mask is made anew."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Schedule:
        if self.end <= self.begin:
            raise PydanticCustomError("order", "'end' must be greater than 'begin'")
        return self


class FineTune(Strict):
    """The training that follows a change of the weights."""

    epochs: int = Field(5, ge=0, le=100_000, description="0: one shot, no training after it.")
    learning_rate: float | None = Field(
        None, gt=0, description="Default: a third of train.learning_rate."
    )
