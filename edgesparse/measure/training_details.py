"""Details of how variants were trained, in results.json: learning curves, layer sparsities,
sensitivities, and which inputs reach the outputs."""

from __future__ import annotations

from pydantic import Field

from edgesparse.measure.rows import Data, Finite, Share, Size


class Training(Data):
    """A training or fine-tuning."""

    label: str
    """The stage's label: what was trained, by which method."""
    variants: list[str]
    """Variants that were made from it."""
    history: dict[str, list[Finite | None]]
    """By epoch the loss and each metric, on training and (`val_`) validation data; null for NaN."""


class LayerSparsity(Data):
    """A layer after the last step of a variant."""

    name: str
    pattern: str
    """unstructured, block-1x4, 2:4, ...; channels where channels were removed."""
    size: Size
    """Weights that are left."""
    target: Share
    """Requested share of zeros or removed channels; 0 where none was set for this layer."""
    achieved: Share
    note: str = ""
    """Why a pattern was not applied."""
    size_before: Size | None = None
    """Weights before channels were removed."""


class LayerSensitivity(Data):
    """The metric on validation data with one layer pruned alone, without training."""

    variants: list[str]
    metric: str
    unit: str
    dense: Finite
    """The metric of the dense model."""
    levels: list[Share]
    """Sparsities that were tried."""
    layers: dict[str, list[Finite]]
    """By layer the metric at each level."""


class InputAttribution(Data):
    """Input values that reach the outputs over nonzero weights."""

    input: str
    shape: list[Size]
    """The input's shape without batch."""
    n_values: Size
    n_connected: Size
    """Values with a path of nonzero weights to an output."""
    attribution: dict[str, list[int]] = Field(default_factory=dict)
    """By output the weight of each value for (positive) or against it, in hundredths of the
    largest, summed over colours; empty for inputs that are not images, or too large."""
    strongest: dict[str, list[tuple[str, Finite]]] = Field(default_factory=dict)
    """By output the values with the largest weights, by name."""


class Provenance(Data):
    """The provenance of a run's variants, by variant where they do not share it."""

    trainings: list[Training] = Field(default_factory=list)
    layers: dict[str, list[LayerSparsity]] = Field(default_factory=dict)
    sensitivities: list[LayerSensitivity] = Field(default_factory=list)
    inputs: dict[str, list[InputAttribution]] = Field(default_factory=dict)
    class_names: list[str] = Field(default_factory=list)

    def merge(self, other: Provenance) -> Provenance:
        """Add what another device's variants have besides."""
        labels = {training.label for training in self.trainings}
        seen = [sensitivity.variants for sensitivity in self.sensitivities]
        return Provenance(
            trainings=[*self.trainings, *(t for t in other.trainings if t.label not in labels)],
            layers={**other.layers, **self.layers},
            sensitivities=[
                *self.sensitivities,
                *(s for s in other.sensitivities if s.variants not in seen),
            ],
            inputs={**other.inputs, **self.inputs},
            class_names=self.class_names or other.class_names,
        )
