"""The `sparsify` section of a variant: a step, or several in sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict, plugins, require_one
from edgesparse.spec.step import Distribution, Kept, Pattern, Sparsity
from edgesparse.spec.step import FineTune as FineTune
from edgesparse.spec.step import Schedule as Schedule
from edgesparse.spec.step import matches as matches
from edgesparse.spec.step import shorthand as shorthand
from edgesparse.spec.trained_methods import DISTRIBUTION, EXCLUDE, PARTIAL
from edgesparse.spec.trained_methods import L1 as L1
from edgesparse.spec.trained_methods import Activations as Activations
from edgesparse.spec.trained_methods import Rigl as Rigl
from edgesparse.spec.trained_methods import Threshold as Threshold

PatternChoice = Literal["auto", Pattern]
LayerChoice = Literal[Pattern, "channels"]
"""Choices of `pattern: auto`."""
Importance = Literal["l1", "l2", "batch-norm"]
BUDGETS = ("ratio", "macs", "parameters", "latency")
REPORTED_GAP = 0.05
"""Difference of target and achieved sparsity from which both are shown."""
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Sparsities at which a layer's sensitivity is measured."""


def _number_or_auto(value: Any) -> str:
    return "|auto" if isinstance(value, str) else "|number"


# A tag that begins with "|" is not a key of the file; see load._follow.
SparsityChoice = Annotated[
    Annotated[Sparsity, Tag("|number")] | Annotated[Literal["auto"], Tag("|auto")],
    Discriminator(_number_or_auto),
]


Multiple = Annotated[
    Annotated[int, Field(ge=1, le=256), Tag("|number")] | Annotated[Literal["auto"], Tag("|auto")],
    Discriminator(_number_or_auto),
]


AUTO_MULTIPLE = 8
"""Multiple of channels for `round_to: auto` where nothing is known of the target."""


def finer_multiple(multiple: int, width: int) -> int:
    """Return the multiple of channels for a layer of a width: at most a quarter of it, since narrow
    layers could not lose channels otherwise."""
    return max(m for m in (1, 2, 4, 8, 16) if m == 1 or m <= min(multiple, width // 4))


class LayerOverride(Strict):
    """Sparsity and pattern of the layers whose names match."""

    sparsity: Sparsity | None = Field(None, description="Instead of the method's sparsity.")
    pattern: Pattern | None = Field(None, description="Instead of the method's pattern.")


class ChannelOverride(Strict):
    """Pruning ratio of the layers whose names match."""

    ratio: Sparsity = Field(description="Share of these layers' channels to remove.")


class Magnitude(FineTune):
    """Magnitude pruning (Zhu and Gupta 2017, arXiv 1710.01878)."""

    method: Literal["magnitude"] = Field(description="The method's name.")
    sparsity: SparsityChoice = Field(
        description="Share of zeros in each pruned layer's kernel; auto: as much as "
        "max_accuracy_drop allows, layer by layer."
    )
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        None,
        description="sparsity auto: largest loss of the task's metric on validation data; 0.02 is "
        "2 points of accuracy, 3.0 is 3 units of an error.",
    )
    pattern: PatternChoice = Field(
        "unstructured",
        description="Pattern of zeros; block-OxI: blocks of O outputs and I inputs. auto: the one "
        "that the target exploits, layer by layer; whole channels where it exploits none.",
    )
    distribution: Literal["auto", Distribution] = Field("auto", description=DISTRIBUTION)
    schedule: Annotated[Schedule, shorthand("name")] = Field(
        Schedule(), description="A name, or a mapping with begin, end and frequency."
    )
    layers: dict[str, LayerOverride] = Field(
        {},
        description="Overrides by layer name; globs, as {'conv_pw_*': {sparsity: 0.9, pattern: "
        "unstructured}}.",
    )
    exclude: list[str] = Field([], description=EXCLUDE)
    allow_partial: bool = Field(False, description=PARTIAL)

    @model_validator(mode="after")
    def _auto_has_a_limit(self) -> Magnitude:
        if (self.sparsity == "auto") != (self.max_accuracy_drop is not None):
            raise PydanticCustomError(
                "auto_sparsity",
                "'sparsity: auto' requires 'max_accuracy_drop', and only that uses it",
            )
        if self.sparsity == "auto" and self.pattern == "2:4":
            raise PydanticCustomError(
                "auto_pattern", "'pattern: 2:4' is 50 % zeros; set 'sparsity: 0.5'"
            )
        if self.distribution not in ("auto", "uniform") and (
            self.sparsity == "auto" or self.pattern == "2:4"
        ):
            raise PydanticCustomError(
                "distribution",
                "'distribution: {name}' requires a numeric sparsity, and not 2:4",
                {"name": self.distribution},
            )
        return self

    @property
    def target_sparsity(self) -> float | None:
        """Target sparsity; None for auto. 2:4 is always 0.5."""
        if self.pattern == "2:4":
            return 0.5
        return None if isinstance(self.sparsity, str) else self.sparsity

    def excludes(self, names: Iterable[str]) -> bool:
        """Return True for a kernel to leave dense; `names` are those of kernel and layer."""
        return matches(self.exclude, names)

    def for_kernel(self, names: Sequence[str]) -> tuple[float | str, PatternChoice]:
        """Return a kernel's sparsity and pattern, after the overrides that match its names."""
        sparsity: float | str = self.sparsity
        pattern: PatternChoice = self.pattern
        # In the file's order, each over the ones before: general first, exceptions after.
        for glob, override in self.layers.items():
            if matches(glob, names):
                sparsity = sparsity if override.sparsity is None else override.sparsity
                pattern = override.pattern or pattern
        return sparsity, pattern


class Channels(FineTune):
    """Structured pruning: removal of whole channels (Li et al. 2016, arXiv 1608.08710)."""

    method: Literal["channels"] = Field(description="The method's name.")
    ratio: Sparsity | None = Field(None, description="Share of the channels to remove.")
    macs: Kept | None = Field(
        None, description="Upper bound of the remaining share of multiply-accumulates."
    )
    parameters: Kept | None = Field(
        None, description="Upper bound of the remaining share of weights."
    )
    latency: Kept | None = Field(
        None,
        description="Upper bound of the remaining share of latency; candidates are measured on the "
        "target, so each device gets its own model.",
    )
    importance: Importance = Field(
        "l2",
        description="Importance of a channel: a norm of its weights with batch normalization "
        "folded, or the scale of the batch normalization behind it.",
    )
    scope: Literal["global", "layer"] = Field(
        "global",
        description="global: the least important channels of the model; layer: the same share of "
        "each layer.",
    )
    round_to: Multiple = Field(
        "auto",
        description="Remaining widths are multiples of this, for vectorized kernels. auto: of 16, "
        "8 or 4, as the target's int8 kernels have it, 8 where nothing is known of it; finer in "
        "layers narrower than four times that.",
    )
    max_pruning_ratio: Sparsity = Field(
        0.9, description="Largest share of channels to remove from a layer."
    )
    layers: dict[str, ChannelOverride] = Field(
        {}, description="Ratios by layer name; globs, as {'conv_pw_1*': {ratio: 0.25}}."
    )
    exclude: list[str] = Field([], description="Layers that keep all their channels; globs.")
    allow_partial: bool = Field(
        False, description="Accept less than half of the requested `ratio`."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Channels:
        require_one(self, BUDGETS)
        return self


class WeightSharing(FineTune):
    """Weight sharing: each kernel keeps a few distinct values (Han et al. 2015, arXiv 1510.00149),
    by clustering with TensorFlow's toolkit."""

    method: Literal["weight-sharing"] = Field(description="The method's name.")
    clusters: int = Field(16, ge=2, le=256, description="Number of distinct values in each kernel.")
    exclude: list[str] = Field([], description="Layers to leave unchanged; globs.")


class OneShot(FineTune):
    """Pruning without training or labels: the remaining weights reconstruct each layer's outputs on
    calibration samples (Frantar and Alistarh 2022, arXiv 2208.11580; 2023, arXiv 2301.00774)."""

    method: Literal["one-shot"] = Field(description="The method's name.")
    sparsity: Sparsity = Field(description="Share of zeros over all weights.")
    pattern: Pattern = Field("unstructured", description="Pattern of zeros.")
    distribution: Literal["error", Distribution] = Field(
        "error",
        description="How zeros are distributed over layers. error: with a small sum of the layers' "
        "output errors; the others as in magnitude pruning.",
    )
    calibration_samples: int = Field(
        500, ge=1, le=100_000, description="Number of calibration samples, from training data."
    )
    epochs: int = Field(0, ge=0, le=100_000, description="Epochs of fine-tuning afterwards.")
    exclude: list[str] = Field([], description=EXCLUDE)
    allow_partial: bool = Field(False, description=PARTIAL)

    @model_validator(mode="after")
    def _distributes_a_sparsity(self) -> OneShot:
        if self.pattern == "2:4" and self.distribution not in ("error", "uniform"):
            raise PydanticCustomError(
                "distribution",
                "'distribution: {name}' has no effect on 2:4, which is 50 % of each layer",
                {"name": self.distribution},
            )
        return self


class SparsifyReference(FineTune):
    """Your own method, by reference: function(model, dataset, train, **args) -> model."""

    method: str = Field(
        description="file.py:function, module:function, or the name of an installed plug-in."
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of the function.")


METHODS = (
    "activations", "channels", "weight-sharing", "l1", "magnitude", "one-shot", "rigl", "threshold",
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
    | Annotated[WeightSharing, Tag("weight-sharing")]
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
    """Return True where the step removes channels, so that the model gets smaller."""
    return isinstance(step, Channels) or (isinstance(step, L1) and step.group == "channel")


def leaves_zeros(step: Sparsify) -> bool:
    """Return True where the step makes zeros in weights; removed channels leave none."""
    return not removes_channels(step) and not isinstance(step, WeightSharing | Activations)


def _in_order(steps: list[Sparsify]) -> list[Sparsify]:
    zeros: Sparsify | None = None
    clustered = False
    for number, step in enumerate(steps):
        if zeros is not None and removes_channels(step):
            raise PydanticCustomError(
                "order",
                "'{removes}' must come before '{zeros}', whose zeros its training would fill",
                {"removes": _label(step), "zeros": _label(zeros)},
            )
        if clustered:
            raise PydanticCustomError(
                "order",
                "'weight-sharing' must come last: training after it gives weights other values",
            )
        if number and isinstance(step, Rigl) and step.from_scratch:
            raise PydanticCustomError(
                "order",
                "'rigl' starts from new weights: make it the first step, or set "
                "'from_scratch: false'",
            )
        zeros = step if leaves_zeros(step) else zeros
        clustered = isinstance(step, WeightSharing)
    return steps


def _label(step: Sparsify) -> str:
    return "l1, group channel" if isinstance(step, L1) else step.method


Steps = Annotated[
    list[Sparsify],
    BeforeValidator(_as_list, json_schema_input_type=Sparsify | list[Sparsify] | None),
    AfterValidator(_in_order),
]
"""Steps; a mapping stands for a list with one item."""
