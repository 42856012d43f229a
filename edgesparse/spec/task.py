"""What a pipeline says its model is for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict

TaskName = Literal[
    "auto", "classification", "multi-label", "regression", "segmentation", "reconstruction"
]


class TaskSpec(Strict):
    """A task by its name, or your own."""

    name: TaskName | None = Field(
        None, description="auto, the default: found from the model and the data."
    )
    ref: str | None = Field(
        None, description="Your own: file.py:function, which gives loss, metrics and judge."
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of that function.")
    top_k: int | None = Field(
        None, ge=2, le=1000, description="classification: of top-k accuracy; default: 5."
    )
    peak: float | None = Field(
        None, gt=0, description="reconstruction: the largest value, for PSNR; default: 1."
    )

    @model_validator(mode="after")
    def _at_most_one(self) -> TaskSpec:
        if self.name is not None and self.ref is not None:
            raise PydanticCustomError("one_of", "give 'name' or 'ref', not both")
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
    ] = Field({}, description="Of a model with several outputs: each one's task, by its name.")
    loss_weights: dict[str, float] = Field(
        {}, description="Of each output's loss, by its name; default: 1."
    )
