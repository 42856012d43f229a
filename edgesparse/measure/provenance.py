"""How variants were made, as results keep it: trainings, layers, what they bear, which inputs
matter."""

from __future__ import annotations

from pydantic import Field

from edgesparse.measure.rows import Data, Finite, Share, Size


class Training(Data):
    """A training or fine-tuning: a value per epoch of the loss and each metric, on training and
    (`val_`) validation data; None for what was no number."""

    label: str
    """Of its stage: what was trained, by which method."""
    variants: list[str]
    history: dict[str, list[Finite | None]]


class LayerZeros(Data):
    """A layer after a variant's last step: shares of zeros, or of channels that are gone, that were
    asked for (0 where nothing was asked of this layer alone) and reached; `size` weights are left,
    of `size_before` where channels are gone; `note` is why a pattern was not used."""

    name: str
    pattern: str
    size: Size
    asked: Share
    reached: Share
    note: str = ""
    size_before: Size | None = None


class Bears(Data):
    """What is left of a metric, on validation data and without training, with one layer pruned
    alone: by layer a value for each level of sparsity. `whole` is the dense model's."""

    variants: list[str]
    metric: str
    unit: str
    whole: Finite
    levels: list[Share]
    layers: dict[str, list[Finite]]


class InputsThatMatter(Data):
    """Which of an input's values still reach the outputs over weights that are not zero.

    `shape` is the input's, without batch. `speaks`: for each output how much each value speaks for
    it (positive) or against it, in hundredths of the largest; summed over the last axis where
    that holds colours. Empty where there are too many to look at. `strongest` are named.
    """

    input: str
    shape: list[Size]
    count: Size
    reaching: Size
    speaks: dict[str, list[int]] = Field(default_factory=dict)
    strongest: dict[str, list[tuple[str, Finite]]] = Field(default_factory=dict)


class Made(Data):
    """Of one run's variants, by their names, but for what several share."""

    trainings: list[Training] = Field(default_factory=list)
    layers: dict[str, list[LayerZeros]] = Field(default_factory=dict)
    bears: list[Bears] = Field(default_factory=list)
    inputs: dict[str, list[InputsThatMatter]] = Field(default_factory=dict)
    labels: list[str] = Field(default_factory=list)
    """What the data calls its classes."""

    def and_also(self, other: Made) -> Made:
        """With what another device's variants have besides."""
        labels = {one.label for one in self.trainings}
        seen = [one.variants for one in self.bears]
        return Made(
            trainings=[*self.trainings, *(t for t in other.trainings if t.label not in labels)],
            layers={**other.layers, **self.layers},
            bears=[*self.bears, *(one for one in other.bears if one.variants not in seen)],
            inputs={**other.inputs, **self.inputs},
            labels=self.labels or other.labels,
        )
