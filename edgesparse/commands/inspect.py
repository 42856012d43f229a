"""The inspect command: weights of a .tflite file, and which of their zeros pay on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.commands.exchange import tflite_and_samples, tflite_file
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.data.transforms import value_names
from edgesparse.measure.rows import ModelFile
from edgesparse.spec.reading.load import load_pipeline
from edgesparse.tflite.activation_zeros import zeros_between
from edgesparse.tflite.format.inspect import ModelInfo, read_model
from edgesparse.tflite.format.inspect import inspect as inspect_file
from edgesparse.tflite.format.signature import Signature, read_signature
from edgesparse.tflite.input_attribution import Features, features, strongest
from edgesparse.tflite.runtimes.explain import (
    Delegated,
    Explanation,
    TensorInfo,
    delegated,
    describe,
    explain,
)

STRONGEST = 8
"""Inputs that are named for each output."""


@dataclass(frozen=True)
class Inspection:
    """A file, its weights, and how each runtime of a device treats each weight.

    Runtimes have the keys "DEVICE | RUNTIME VERSION".
    """

    file: str
    info: ModelInfo
    tensors: tuple[TensorInfo, ...]
    explained: Mapping[str, tuple[Explanation, ...]]
    signature: Signature
    half_precision: Mapping[str, str] = field(default_factory=dict)
    """For a file that allows half precision: by runtime why it is not used, empty where it is."""
    delegated: Mapping[str, Delegated] = field(default_factory=dict)
    """What edgesparse's delegate makes of an int8 file, by runtime."""
    activations: Mapping[str, float] | None = None
    """Share of zeros in each operator's output, over samples."""
    features: tuple[Features, ...] | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of each input's values in the data, and of the outputs as "labels"."""

    @property
    def record(self) -> dict[str, Any]:
        """A JSON record."""
        return {
            "file": self.file,
            **ModelFile.of(self.info).model_dump(),
            "inputs": [asdict(spec) for spec in self.signature.inputs],
            "outputs": [asdict(spec) for spec in self.signature.outputs],
            "operators": dict(self.signature.operators),
            "custom": list(self.signature.custom),
            "half_precision": self.info.half_precision,
            "half_precision_refused": dict(self.half_precision),
            "delegate": {name: asdict(line) for name, line in self.delegated.items()},
            "tensors": [asdict(tensor) for tensor in self.tensors],
            **({} if self.activations is None else {"activations": dict(self.activations)}),
            **({} if self.features is None else {"features": self._features}),
            "explained": {
                name: [asdict(line) for line in lines] for name, lines in self.explained.items()
            },
        }

    @property
    def _features(self) -> list[dict[str, Any]]:
        return [
            {
                "input": features.name,
                "reach": int(features.reach.sum()),
                "of": len(features.reach),
                "followed": features.followed,
                "silent": [self.name_of(features, i) for i in np.flatnonzero(~features.reach)],
                "strongest": {
                    label: [[name, round(value, 6)] for name, value in inputs]
                    for label, inputs in self.strongest(features).items()
                },
            }
            for features in self.features or ()
        ]

    def name_of(self, features: Features, index: int) -> str:
        """Name of an input's value."""
        names = self.names.get(features.name) or self.names.get("x", ())
        return names[index] if index < len(names) else str(index)

    def strongest(self, features: Features) -> dict[str, list[tuple[str, float]]]:
        """By output the input values with the largest weights."""
        names = self.names.get(features.name) or self.names.get("x", ())
        return strongest(features, self.names.get("labels", ()), names, STRONGEST)


def inspect(
    project: Resources,
    file: str | Path,
    device: DeviceName | None = None,
    *,
    samples: str | Path | None = None,
    attribution: bool = False,
    pipeline: str | Path | None = None,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
) -> Inspection:
    """Describe every weight of a .tflite file, and which zeros pay on a device.

    Args:
        file: a .tflite file; a .pt2 or .onnx file is converted, as FILE.py:FUNCTION is, which
            returns a torch.nn.Module.
        samples: a .npy or .npz, for which zeros between operators are measured; of inputs as the
            original takes them.
        attribution: find which inputs reach the outputs, and with what weight.
        pipeline: a pipeline file whose data names inputs and outputs.
        weights: of FILE.py:FUNCTION: its state_dict.
        input_shapes: of FILE.py:FUNCTION: shapes of its inputs, as "1x3x224x224" or "1x128:int64".

    Raises:
        EdgesparseError: the file cannot be read or is not a .tflite; the device cannot be used.
    """
    if samples is not None:
        file, samples = tflite_and_samples(project, file, Path(samples), weights, input_shapes)
    else:
        file = tflite_file(project, file, weights, input_shapes)
    content = read_model(file)
    info, tensors = inspect_file(content, str(file)), describe(content, str(file))
    explained: dict[str, tuple[Explanation, ...]] = {}
    half: dict[str, str] = {}
    by_delegate: dict[str, Delegated] = {}
    if device is not None:
        with project.target(device) as target:
            runtime_profiles = profiles(target, project.workspace())
        for name, profile in runtime_profiles.items():
            runtime = f"{target.device.name} | {name} {profile.machine.version}"
            explained[runtime] = explain(content, profile, str(file))
            if (ours := delegated(content, profile, str(file))) is not None:
                by_delegate[runtime] = ours
            if info.half_precision:
                half[runtime] = profile.half_precision.why
    return Inspection(
        str(file),
        info,
        tensors,
        explained,
        read_signature(content, str(file)),
        half,
        by_delegate,
        zeros_between(file, Path(samples)) if samples is not None else None,
        tuple(features(content, str(file))) if attribution else None,
        _names(pipeline) if pipeline is not None else {},
    )


def _names(pipeline: str | Path) -> dict[str, tuple[str, ...]]:
    """Load a pipeline's data for the names of its values and labels."""
    from edgesparse import data

    loaded = load_pipeline(pipeline)
    dataset = data.load(loaded.spec.data, loaded.folder)
    return {**value_names(dataset.transforms), "labels": dataset.class_names}
