"""Steps whose zeros training finds by itself: penalties, thresholds, connections that move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.step import FineTune, Fraction, Sparsity

PenaltyGroup = Literal["weight", "block-1x4", "block-1x16", "input", "channel"]
EXCLUDE = "Layers to leave dense; globs."
MAX_KERNEL_SPARSITY = {"l1": 0.99, "one-shot": 0.99, "rigl": 0.995}
"""No kernel gets a larger share where zeros over all weights are asked for: it would pass nothing
on."""
PARTIAL = "Go on where less than half of what was asked is reached over all weights."


class Threshold(FineTune):
    """Weights below a limit go, the others are trained on (Han et al. 2015, arXiv 1506.02626)."""

    method: Literal["threshold"] = Field(description="The method's name.")
    value: float | None = Field(None, gt=0, description="Weights smaller than this go.")
    relative: float | None = Field(
        None, gt=0, description="Weights smaller than this many standard deviations of their "
        "kernel go."
    )  # fmt: skip
    exclude: list[str] = Field([], description=EXCLUDE)

    @model_validator(mode="after")
    def _one_limit(self) -> Threshold:
        if (self.value is None) == (self.relative is None):
            raise PydanticCustomError("one_of", "give exactly one of 'value' and 'relative'")
        return self


class L1(FineTune):
    """A penalty on the size of weights, or of groups of them, that makes zeros while it trains:
    proximal steps (ISTA; Beck and Teboulle 2009), group lasso (Yuan and Lin 2006)."""

    method: Literal["l1"] = Field(description="The method's name.")
    penalty: float | None = Field(
        None, gt=0, description="How fast weights shrink, in shares of their kernel's root mean "
        "square for each unit of learning rate."
    )  # fmt: skip
    sparsity: Sparsity | None = Field(
        None, description="Share of zeros, or of channels, to which the penalty is steered."
    )
    group: PenaltyGroup = Field(
        "weight",
        description="What becomes zero together: single weights; blocks along the inputs of an "
        "output; all weights of an input of the model; or a channel, which is then removed.",
    )
    end: Fraction = Field(
        0.6, description="Share of the training after which zeros stay and nothing shrinks."
    )
    epochs: int = Field(10, ge=1, le=100_000, description="Of training with the penalty.")
    exclude: list[str] = Field([], description=EXCLUDE)
    allow_partial: bool = Field(False, description=PARTIAL)

    @model_validator(mode="after")
    def _one_goal(self) -> L1:
        if (self.penalty is None) == (self.sparsity is None):
            raise PydanticCustomError("one_of", "give exactly one of 'penalty' and 'sparsity'")
        return self


class Rigl(FineTune):
    """Sparse from the first step on: connections that matter least move to where the gradient is
    largest (Evci et al. 2020, arXiv 1911.11134)."""

    method: Literal["rigl"] = Field(description="The method's name.")
    sparsity: Sparsity = Field(description="Share of zeros over all weights, all the time.")
    distribution: Literal["erk", "uniform"] = Field(
        "erk",
        description="erk: smaller layers keep a larger share (Erdos-Renyi-Kernel); uniform: all "
        "the same.",
    )
    drop_fraction: Fraction = Field(
        0.3, description="Share of the connections that moves at first; less and less later."
    )
    frequency: Fraction = Field(
        0.02, description="How often connections move, as a share of the training."
    )
    end: Fraction = Field(0.75, description="Share of the training after which none moves.")
    from_scratch: bool = Field(
        True, description="Begin with new weights, with train.learning_rate; false: with the "
        "largest of those that are there."
    )  # fmt: skip
    epochs: int = Field(20, ge=1, le=100_000, description="Of training.")
    learning_rate: float | None = Field(
        None, gt=0, description="Default: train.learning_rate; a third of it if not from scratch."
    )
    exclude: list[str] = Field([], description=EXCLUDE)
    allow_partial: bool = Field(False, description=PARTIAL)


class Activations(FineTune):
    """Zeros between layers: activations that are smooth become ReLU, and a penalty makes more of
    them zero (L1; or Hoyer 2004, Kurtz et al. 2020)."""

    method: Literal["activations"] = Field(description="The method's name.")
    penalty: Literal["l1", "hoyer"] | None = Field(
        "l1", description="On what rectifiers give; null: none."
    )
    penalty_weight: float = Field(
        1.0, gt=0, description="Of the penalty in the loss; it is 1 at most at its beginning."
    )
    to_relu: bool = Field(
        True, description="Let GELU, SiLU and swish be ReLU, whose zeros are exact."
    )
    exclude: list[str] = Field([], description="Layers whose activations stay; globs.")
