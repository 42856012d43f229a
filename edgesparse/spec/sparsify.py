"""What a variant's `sparsify` says: one step, or several that follow one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict
from edgesparse.spec.code.references import plugins
from edgesparse.spec.step import FineTune as FineTune
from edgesparse.spec.step import Kept, Sparsity
from edgesparse.spec.step import Schedule as Schedule
from edgesparse.spec.step import matches as matches
from edgesparse.spec.step import shorthand as shorthand
from edgesparse.spec.trained_methods import L1 as L1
from edgesparse.spec.trained_methods import Activations as Activations
from edgesparse.spec.trained_methods import Rigl as Rigl
from edgesparse.spec.trained_methods import Threshold as Threshold

Pattern = Literal["unstructured", "block-1x4", "block-1x16", "2:4"]
BLOCK: dict[str, int] = {"block-1x4": 4, "block-1x16": 16, "2:4": 4}
"""How many weights along the inputs are told together."""
PatternChoice = Literal["auto", "unstructured", "block-1x4", "block-1x16", "2:4"]
LayerChoice = Literal["unstructured", "block-1x4", "block-1x16", "2:4", "channels"]
"""What `pattern: auto` picks from."""
Importance = Literal["l1", "l2", "batch-norm"]
BUDGETS = ("ratio", "macs", "parameters", "latency")
REPORTED_GAP = 0.05
"""From so many points on what was asked and what was reached are shown side by side."""
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Sparsities at which a layer's sensitivity is measured."""


def _number_or_auto(value: Any) -> str:
    return "|auto" if isinstance(value, str) else "|number"


# A tag that begins with "|" is no key of the file; see load._follow.
SparsityChoice = Annotated[
    Annotated[Sparsity, Tag("|number")] | Annotated[Literal["auto"], Tag("|auto")],
    Discriminator(_number_or_auto),
]


class LayerOverride(Strict):
    """What is different for the layers whose names match."""

    sparsity: Sparsity | None = Field(None, description="Instead of the method's sparsity.")
    pattern: Pattern | None = Field(None, description="Instead of the method's pattern.")


class ChannelOverride(Strict):
    """What is different for the layers whose names match."""

    ratio: Sparsity = Field(description="Share of these layers' channels that is removed.")


class Magnitude(FineTune):
    """Magnitude pruning (Zhu and Gupta 2017, arXiv 1710.01878) with TensorFlow's toolkit."""

    method: Literal["magnitude"] = Field(description="The method's name.")
    sparsity: SparsityChoice = Field(
        description="Share of zeros in each pruned layer's kernel; auto: what max_accuracy_drop "
        "allows, layer by layer."
    )
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        None,
        description="sparsity auto: what may be lost of the metric that counts, on validation "
        "data; 0.02 are two points of a share.",
    )
    pattern: PatternChoice = Field(
        "unstructured",
        description="Which zeros go together; blocks run along the inputs of an output. auto: what "
        "the target exploits, layer by layer, and whole channels where it exploits nothing.",
    )
    scope: Literal["layer", "global"] = Field(
        "layer",
        description="layer: the same share of each layer; global: the smallest weights of all.",
    )
    schedule: Annotated[Schedule, shorthand("name")] = Field(
        Schedule(), description="A name, or a mapping with begin, end and frequency."
    )
    layers: dict[str, LayerOverride] = Field(
        {}, description="Overrides by layer name; globs such as 'conv_pw_*'."
    )
    exclude: list[str] = Field([], description="Layers to leave dense; globs.")
    allow_partial: bool = Field(
        False,
        description="Go on where less than half of what was asked is reached over all weights.",
    )

    @model_validator(mode="after")
    def _auto_has_a_limit(self) -> Magnitude:
        if (self.sparsity == "auto") != (self.max_accuracy_drop is not None):
            raise PydanticCustomError(
                "auto_sparsity", "'sparsity: auto' and 'max_accuracy_drop' go together"
            )
        if self.sparsity == "auto" and self.pattern == "2:4":
            raise PydanticCustomError("auto_pattern", "'2:4' is always 50 % zeros, never 'auto'")
        if self.scope == "global" and (self.sparsity == "auto" or self.pattern in ("2:4", "auto")):
            raise PydanticCustomError(
                "global", "'scope: global' needs a number as sparsity, and neither 2:4 nor auto"
            )
        return self

    @property
    def target_sparsity(self) -> float | None:
        """The share of zeros that is asked for; 2:4 is half, whatever number stands beside it."""
        if self.pattern == "2:4":
            return 0.5
        return None if isinstance(self.sparsity, str) else self.sparsity

    def excludes(self, names: Iterable[str]) -> bool:
        """Whether a kernel is left dense; `names` are its own and its layer's."""
        return matches(self.exclude, names)

    def for_kernel(self, names: Sequence[str]) -> tuple[float | str, PatternChoice]:
        """A kernel's sparsity and pattern, after the overrides that match one of its names."""
        sparsity: float | str = self.sparsity
        pattern: PatternChoice = self.pattern
        # In the file's order, each over the ones before: general first, exceptions after.
        for glob, override in self.layers.items():
            if matches(glob, names):
                sparsity = sparsity if override.sparsity is None else override.sparsity
                pattern = override.pattern or pattern
        return sparsity, pattern


class Channels(FineTune):
    """Channel pruning: whole channels are removed and the model gets smaller (Li et al. 2016,
    arXiv 1608.08710)."""

    method: Literal["channels"] = Field(description="The method's name.")
    ratio: Sparsity | None = Field(None, description="Share of the channels that is removed.")
    macs: Kept | None = Field(
        None, description="Share of the multiply-accumulates that is left, at most."
    )
    parameters: Kept | None = Field(None, description="Share of the weights that is left, at most.")
    latency: Kept | None = Field(
        None, description="Share of the time on the target that is left, at most; measured there."
    )
    importance: Importance = Field(
        "l2",
        description="What tells how much a channel matters: a norm of its weights, or the "
        "scale of the batch normalization behind it.",
    )
    scope: Literal["global", "layer"] = Field(
        "global",
        description="global: the least important channels of the model; layer: of each layer the "
        "same share.",
    )
    round_to: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Widths that are left are multiples of this; default: 8, and less in layers "
        "narrower than 32.",
    )
    max_pruning_ratio: Sparsity = Field(
        0.9, description="No layer loses a larger share of its channels."
    )
    layers: dict[str, ChannelOverride] = Field(
        {}, description="A ratio of its own, by layer name; globs."
    )
    exclude: list[str] = Field([], description="Layers that keep all their channels; globs.")
    allow_partial: bool = Field(
        False, description="Go on where less than half of `ratio` of the channels can be removed."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Channels:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_of",
                "give exactly one of {choices}, not {found}",
                {
                    "choices": f"{', '.join(BUDGETS[:-1])} and {BUDGETS[-1]}",
                    "found": " and ".join(given) or "none",
                },
            )
        return self


class WeightSharing(FineTune):
    """Weight clustering: each kernel keeps a few values (Han et al. 2015, arXiv 1510.00149), with
    TensorFlow's toolkit."""

    method: Literal["weight_sharing"] = Field(description="The method's name.")
    clusters: int = Field(16, ge=2, le=256, description="How many values each kernel has.")
    exclude: list[str] = Field([], description="Layers to leave as they are; globs.")


class OneShot(FineTune):
    """Zeros without training or labels: each layer's outputs are reconstructed on calibration
    inputs by the weights that are left (Frantar and Alistarh 2022, arXiv 2208.11580; 2023, arXiv
    2301.00774)."""

    method: Literal["one-shot"] = Field(description="The method's name.")
    sparsity: Sparsity = Field(description="Share of zeros over all weights.")
    pattern: Pattern = Field(
        "unstructured", description="Which zeros go together, along the inputs of an output."
    )
    calibration_samples: int = Field(
        500, ge=1, le=100_000, description="Calibration inputs, of training data."
    )
    epochs: int = Field(0, ge=0, le=100_000, description="Of fine-tuning afterwards.")
    exclude: list[str] = Field([], description="Layers to leave dense; globs.")
    allow_partial: bool = Field(
        False,
        description="Go on where less than half of what was asked is reached over all weights.",
    )


class SparsifyReference(FineTune):
    """Your own method, by reference: function(model, dataset, train, **args) -> model."""

    method: str = Field(
        description="file.py:function, module:function, or the name of an installed plug-in."
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of the function.")


METHODS = (
    "activations", "channels", "weight_sharing", "l1", "magnitude", "one-shot", "rigl", "threshold",
)  # fmt: skip


def _method(value: Any) -> str | None:
    method = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    if not isinstance(method, str):
        return None
    if ":" in method or (method not in METHODS and method in plugins("methods")):
        return "ref"
    return method


Sparsify = Annotated[
    Annotated[Magnitude, Tag("magnitude")]
    | Annotated[Channels, Tag("channels")]
    | Annotated[WeightSharing, Tag("weight_sharing")]
    | Annotated[Threshold, Tag("threshold")]
    | Annotated[L1, Tag("l1")]
    | Annotated[Rigl, Tag("rigl")]
    | Annotated[Activations, Tag("activations")]
    | Annotated[OneShot, Tag("one-shot")]
    | Annotated[SparsifyReference, Tag("ref")],
    Discriminator(_method),
]


def _as_list(value: Any) -> Any:
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


def removes_channels(step: Sparsify) -> bool:
    """Whether the model gets smaller by it."""
    return isinstance(step, Channels) or (isinstance(step, L1) and step.group == "channel")


def leaves_zeros(step: Sparsify) -> bool:
    """Whether weights may be zero after it; removed channels leave none."""
    return not removes_channels(step) and not isinstance(step, WeightSharing | Activations)


def _in_order(steps: list[Sparsify]) -> list[Sparsify]:
    zeros: Sparsify | None = None
    clustered = False
    for number, step in enumerate(steps):
        if zeros is not None and removes_channels(step):
            raise PydanticCustomError(
                "order",
                "'{removes}' must come before '{zeros}': training after it fills the zeros",
                {"removes": _told(step), "zeros": _told(zeros)},
            )
        if clustered:
            raise PydanticCustomError(
                "order",
                "'weight_sharing' must come last: training after it gives weights other values",
            )
        if number and isinstance(step, Rigl) and step.from_scratch:
            raise PydanticCustomError(
                "order",
                "'rigl' begins with new weights: make it the first step, or say "
                "'from_scratch: false'",
            )
        zeros = step if leaves_zeros(step) else zeros
        clustered = isinstance(step, WeightSharing)
    return steps


def _told(step: Sparsify) -> str:
    return "l1, group channel" if isinstance(step, L1) else step.method


Steps = Annotated[
    list[Sparsify],
    BeforeValidator(_as_list, json_schema_input_type=Sparsify | list[Sparsify] | None),
    AfterValidator(_in_order),
]
"""One mapping stands for a list of one."""
