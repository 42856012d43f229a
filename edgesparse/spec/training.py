"""The `train` section of a pipeline: training of the dense model, and defaults of fine-tuning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict
from edgesparse.spec.sparsify import shorthand


class Named(Strict):
    """A Keras object by name, with its arguments."""

    name: str = Field(description="Name in Keras, such as AdamW, SGD or huber.")
    args: dict[str, Any] = Field({}, description="Keyword arguments.")


class Reference(Strict):
    """A user's function or class, with its arguments."""

    ref: str = Field(description="file.py:function or module:function.")
    args: dict[str, Any] = Field({}, description="Keyword arguments.")


class LearningRate(Strict):
    """Schedule of the learning rate, from `train.learning_rate`; epochs can be fractions."""

    name: Literal["constant", "cosine", "step", "exponential", "piecewise"] = Field(
        "constant",
        description="cosine: down to 0; step: times `factor` every `epochs`; exponential: like "
        "step, but smooth; piecewise: times each of `factors` from each of `boundaries` on.",
    )
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs of linear growth from 0, before.")
    epochs: float = Field(10.0, gt=0, description="step, exponential: see `name`.")
    factor: float = Field(0.5, gt=0, description="step, exponential: see `name`.")
    boundaries: list[float] = Field([], description="piecewise: epochs, ascending.")
    factors: list[float] = Field([], description="piecewise: a factor for each boundary.")

    @model_validator(mode="after")
    def _pairs(self) -> LearningRate:
        factors = (self.boundaries, self.factors)
        if self.name == "piecewise" and (not factors[0] or len(factors[0]) != len(factors[1])):
            raise PydanticCustomError(
                "pairs", "'piecewise' requires 'boundaries' and as many 'factors'"
            )
        if sorted(self.boundaries) != self.boundaries:
            raise PydanticCustomError("order", "'boundaries' must be in ascending order")
        return self


def _by_name(key: str) -> BeforeValidator:
    """Let a text stand for {name: text}, and other keys for arguments."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {key: value}
        if isinstance(value, dict) and key in value and "args" not in value:
            args = {name: item for name, item in value.items() if name != key}
            return {key: value[key], "args": args}
        return value

    return BeforeValidator(expand, json_schema_input_type=Any)


ByName = Annotated[Named, _by_name("name")]


class Regularize(Strict):
    """A penalty on kernels in the loss; it makes weights small, but not exactly zero."""

    l1: float = Field(0.0, ge=0, description="Factor of the sum of absolute values.")
    l2: float = Field(0.0, ge=0, description="Factor of the sum of squares.")
    layers: list[str] = Field(["*"], description="Layers, by name; globs.")


class Strategy(Strict):
    """Distribution of a training over several devices."""

    name: Literal["none", "mirrored"] = Field(
        description="mirrored: each device has the model and takes its share of every batch."
    )
    devices: list[Annotated[str, Field(pattern=r"^(CPU|GPU|TPU):[0-9]{1,2}$")]] = Field(
        [], description="Devices, such as GPU:0; default: every GPU."
    )


class Train(Strict):
    """Training of the dense model that all variants start from."""

    epochs: int = Field(10, ge=0, le=100_000, description="0 keeps the weights as they are.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Samples per training step.")
    learning_rate: float = Field(
        1e-3, gt=0, description="Peak learning rate; default: a compiled model's, else 1e-3."
    )
    schedule: Annotated[LearningRate, shorthand("name")] = Field(
        LearningRate(), description="Schedule of the learning rate: a name, or a mapping."
    )
    optimizer: ByName | None = Field(
        None,
        description="Keras optimizer, by name or with arguments, as {name: SGD, momentum: 0.9, "
        "clipnorm: 1.0}; default: a compiled model's, or Adam.",
    )
    loss: ByName | None = Field(
        None,
        description="Keras loss, by name or with arguments, as {name: Huber, delta: 2.0}; default: "
        "a compiled model's, or the task's.",
    )
    metrics: list[ByName] = Field(
        [], description="More Keras metrics for training; default: a compiled model's."
    )
    class_weight: Literal["balanced"] | dict[int, float] | None = Field(
        None, description="Weight of each class: balanced, or by class, as {0: 1.0, 1: 5.0}."
    )
    regularize: Regularize | None = Field(
        None,
        description="L1 or L2 penalty on kernels, in training and fine-tuning; it makes weights "
        "small, but not exactly zero, unlike 'method: l1'.",
    )
    callbacks: list[Annotated[Reference, shorthand("ref")]] = Field(
        [],
        description="Your own Keras callbacks: functions or classes that return one, as "
        "['my_callbacks.py:Logger'] or {ref: ..., args: {...}}.",
    )
    early_stopping: int | None = Field(
        None, ge=1, description="Stop after this many epochs without a better validation metric."
    )
    seed: int = Field(
        7, ge=0, lt=2**31, description="The same seed gives the same weights on the same CPU."
    )
    deterministic: Literal["auto"] | bool = Field(
        "auto",
        description="auto: where every operation allows it, else with a note; true: fail "
        "otherwise.",
    )
    mixed_precision: bool = Field(
        False, description="Train with 16-bit arithmetic; the saved model is float32."
    )
    recalibrate_batch_norm: bool | None = Field(
        None,
        description="Recompute the statistics of batch normalization after training: after a short "
        "one they are stale, and the model is at chance level; default: where validation is far "
        "behind training and it helps, with a note; false: never.",
    )
    strategy: Annotated[Strategy, shorthand("name")] = Field(
        Strategy(name="none"),
        description="mirrored: train on every GPU of a machine; fine-tunings take one.",
    )
    tensorboard: bool = Field(False, description="Write TensorBoard files beside the model.")
    from_logits: bool | None = Field(
        None,
        description="True where the model's outputs are logits; default: by its last layer.",
    )
    ref: str | None = Field(
        None,
        description="Your own training loop, for training and every fine-tuning: function(model, "
        "dataset, train, callbacks, batches, validation), with any of these parameters.",
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of that function.")
