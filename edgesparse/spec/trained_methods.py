"""Steps whose zeros come from training: penalties, thresholds, connections that move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import require_one
from edgesparse.spec.step import Block, Distribution, FineTune, Fraction, Sparsity

PenaltyGroup = Literal["weight", Block, "input", "channel"]
EXCLUDE = "Layers to leave dense; globs."
MAX_KERNEL_SPARSITY = {"l1": 0.99, "one-shot": 0.99, "rigl": 0.995}
"""Upper bound of a kernel's sparsity where the target is over all weights: a kernel of zeros only
would cut the network."""
DISTRIBUTION = (
    "How zeros are distributed over layers. uniform: the same share of each; erk: smaller layers "
    "lose less (Erdos-Renyi-Kernel); global: the smallest weights or blocks of the model; lamp: "
    "the smallest shares of what is left of their layer (Lee et al. 2021, arXiv 2010.07611); auto: "
    "lamp where convolutions lose blocks, else uniform."
)
PARTIAL = "Accept less than half of the requested sparsity over all weights."


class Threshold(FineTune):
    """Removal of weights below a limit, with fine-tuning of the others (Han et al. 2015, arXiv
    1506.02626)."""

    method: Literal["threshold"] = Field(description="The method's name.")
    value: float | None = Field(None, gt=0, description="Weights smaller than this become zero.")
    relative: float | None = Field(
        None, gt=0, description="Weights smaller than this many standard deviations of their "
        "kernel become zero."
    )  # fmt: skip
    exclude: list[str] = Field([], description=EXCLUDE)

    @model_validator(mode="after")
    def _one_limit(self) -> Threshold:
        require_one(self, ("value", "relative"))
        return self


class L1(FineTune):
    """A penalty on weights, or on groups of them, that makes zeros in training: proximal steps
    (ISTA; Beck and Teboulle 2009), group lasso (Yuan and Lin 2006)."""

    method: Literal["l1"] = Field(description="The method's name.")
    penalty: float | None = Field(
        None, gt=0, description="Shrinkage of weights per unit of learning rate, as a share of "
        "their kernel's root mean square; 10 is mild."
    )  # fmt: skip
    sparsity: Sparsity | None = Field(
        None, description="Share of zeros, or of channels, that the penalty is adjusted to reach."
    )
    group: PenaltyGroup = Field(
        "weight",
        description="Group of weights that become zero together: single weights; blocks of outputs "
        "x inputs; all weights of an input of the model, which removes features or words; or a "
        "channel, which is then removed.",
    )
    distribution: Literal["auto", Distribution] = Field("auto", description=DISTRIBUTION)
    end: Fraction = Field(
        0.6, description="Share of the training after which zeros stay and nothing shrinks."
    )
    epochs: int = Field(10, ge=1, le=100_000, description="Epochs of training with the penalty.")
    exclude: list[str] = Field([], description=EXCLUDE)
    allow_partial: bool = Field(False, description=PARTIAL)

    @property
    def pattern(self) -> Literal["unstructured", Block]:
        """The pattern of zeros in kernels."""
        group = self.group
        if group == "weight" or group == "input" or group == "channel":
            return "unstructured"
        return group

    @model_validator(mode="after")
    def _one_goal(self) -> L1:
        require_one(self, ("penalty", "sparsity"))
        joint = self.distribution != "auto"
        if joint and (self.sparsity is None or self.group in ("input", "channel")):
            raise PydanticCustomError(
                "distribution",
                "'distribution' requires 'sparsity', and groups of weights or blocks",
            )
        return self


class Rigl(FineTune):
    """Sparse training from the first step: the smallest connections move to the largest gradients
    (Evci et al. 2020, arXiv 1911.11134)."""

    method: Literal["rigl"] = Field(description="The method's name.")
    sparsity: Sparsity = Field(description="Share of zeros over all weights, constantly.")
    pattern: Literal["unstructured", Block] = Field(
        "unstructured", description="What moves: single weights, or blocks of outputs x inputs."
    )
    distribution: Literal["erk", "uniform"] = Field(
        "erk",
        description="erk: smaller layers keep a larger share (Erdos-Renyi-Kernel); uniform: all "
        "layers the same share.",
    )
    drop_fraction: Fraction = Field(
        0.3, description="Share of the connections that moves at first; it decays to 0."
    )
    frequency: Fraction = Field(
        0.02, description="Interval between moves, as a share of the training."
    )
    end: Fraction = Field(0.75, description="Share of the training after which none moves.")
    from_scratch: bool = Field(
        True, description="Start from new weights, with train.learning_rate; false: from the "
        "largest of the trained ones."
    )  # fmt: skip
    epochs: int = Field(20, ge=1, le=100_000, description="Epochs of training.")
    learning_rate: float | None = Field(
        None, gt=0, description="Default: train.learning_rate; a third of it if not from scratch."
    )
    exclude: list[str] = Field([], description=EXCLUDE)
    allow_partial: bool = Field(False, description=PARTIAL)


class Activations(FineTune):
    """Zeros in activations: smooth activation functions become ReLU, and a penalty increases the
    share of zeros (L1; or Hoyer 2004, Kurtz et al. 2020)."""

    method: Literal["activations"] = Field(description="The method's name.")
    penalty: Literal["l1", "hoyer"] | None = Field(
        "l1",
        description="Penalty on the outputs of ReLU layers; hoyer is independent of their scale; "
        "null: none.",
    )
    penalty_weight: float = Field(
        1.0, gt=0, description="Weight of the penalty, which is at most 1 at first, in the loss."
    )
    to_relu: bool = Field(
        True,
        description="Replace GELU, SiLU, swish, ELU, SELU and softplus by ReLU, whose "
        "zeros are exact.",
    )
    exclude: list[str] = Field([], description="Layers whose activations are kept; globs.")
