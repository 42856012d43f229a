"""The `task` of a pipeline: loss and metrics of the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict

TaskName = Literal[
    "auto", "classification", "multi-label", "regression", "segmentation", "reconstruction"
]


class TaskSpec(Strict):
    """A built-in task by name, or your own by reference."""

    name: TaskName | None = Field(
        None, description="Name of a task; auto, the default: inferred from model and data."
    )
    ref: str | None = Field(
        None,
        description='Your own: file.py:function that returns {"loss": ..., "metrics": {name: '
        "function(outputs, targets)}}.",
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of that function.")
    top_k: int | None = Field(
        None, ge=2, le=1000, description="classification: k of top-k accuracy; default: 5."
    )
    peak: float | None = Field(
        None, gt=0, description="reconstruction: the largest value, for PSNR; default: 1."
    )

    @model_validator(mode="after")
    def _at_most_one(self) -> TaskSpec:
        if self.name is not None and self.ref is not None:
            raise PydanticCustomError("one_of", "set 'name' or 'ref', not both")
        return self


class Tasks(TaskSpec):
    """The task of a model, or of each of its outputs."""

    outputs: dict[
        str,
        Annotated[
            TaskSpec,
            BeforeValidator(
                lambda value: {"name": value} if isinstance(value, str) else value,
                json_schema_input_type=Any,
            ),
        ],
    ] = Field({}, description="Task of each output, by its name, of a model with several.")
    loss_weights: dict[str, float] = Field(
        {}, description="Weight of each output's loss, by its name; default: 1."
    )
