"""What is in a .tflite file, and which of its zeros pay on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.data.transforms import value_names
from edgesparse.measure.rows import ModelFile
from edgesparse.spec.reading.load import load_pipeline
from edgesparse.tflite.activations import zeros_between
from edgesparse.tflite.features import Features, features, strongest
from edgesparse.tflite.format.inspect import ModelInfo, read_model
from edgesparse.tflite.format.inspect import inspect as inspect_file
from edgesparse.tflite.format.signature import Signature, read_signature
from edgesparse.tflite.runtimes.explain import Explanation, TensorInfo, describe, explain

STRONGEST = 8
"""So many inputs are named for each output."""


@dataclass(frozen=True)
class Inspection:
    """A file, its weights, and with a device what each of its runtimes makes of each weight; a
    runtime's key is "DEVICE | RUNTIME VERSION"."""

    file: str
    info: ModelInfo
    tensors: tuple[TensorInfo, ...]
    explained: Mapping[str, tuple[Explanation, ...]]
    signature: Signature
    half_precision: Mapping[str, str] = field(default_factory=dict)
    """Where a file may be computed so: by runtime why it is not; empty where it is."""
    activations: Mapping[str, float] | None = None
    """The share of zeros in what each operator gives, for samples."""
    features: tuple[Features, ...] | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of an input's values and of the outputs, as the data has them; outputs are "labels"."""

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.file,
            **ModelFile.of(self.info).model_dump(),
            "inputs": [asdict(spec) for spec in self.signature.inputs],
            "outputs": [asdict(spec) for spec in self.signature.outputs],
            "operators": dict(self.signature.operators),
            "custom": list(self.signature.custom),
            "half_precision": self.info.half_precision,
            "half_precision_refused": dict(self.half_precision),
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
                "input": one.name,
                "reach": int(one.reach.sum()),
                "of": len(one.reach),
                "followed": one.followed,
                "silent": [self.name_of(one, i) for i in np.flatnonzero(~one.reach)],
                "strongest": {
                    label: [[name, round(value, 6)] for name, value in found]
                    for label, found in self.strongest(one).items()
                },
            }
            for one in self.features or ()
        ]

    def name_of(self, one: Features, place: int) -> str:
        known = self.names.get(one.name) or self.names.get("x", ())
        return known[place] if place < len(known) else str(place)

    def strongest(self, one: Features) -> dict[str, list[tuple[str, float]]]:
        """For each output the inputs that speak for it most."""
        called = self.names.get(one.name) or self.names.get("x", ())
        return strongest(one, self.names.get("labels", ()), called, STRONGEST)


def inspect(
    project: Resources,
    file: str | Path,
    device: DeviceName | None = None,
    *,
    samples: str | Path | None = None,
    with_features: bool = False,
    pipeline: str | Path | None = None,
) -> Inspection:
    """Describe every weight of a .tflite file, and say what pays on a device.

    Args:
        samples: a .npy or .npz, for which it is measured how much between operators is zero.
        with_features: say which inputs still reach the outputs, and which are strong for which.
        pipeline: a pipeline file whose data names inputs and outputs.

    Raises:
        EdgesparseError: the file cannot be read or is none; the device cannot be used.
    """
    content = read_model(Path(file))
    info, tensors = inspect_file(content, str(file)), describe(content, str(file))
    explained: dict[str, tuple[Explanation, ...]] = {}
    half: dict[str, str] = {}
    if device is not None:
        # The device is only asked what it is: weights are explained by what is known of it.
        with project.target(device) as target:
            known = profiles(target, project.workspace())
        for name, profile in known.items():
            runtime = f"{target.device.name} | {name} {profile.machine.version}"
            explained[runtime] = explain(content, profile, str(file))
            if info.half_precision:
                half[runtime] = profile.half_precision.why
    return Inspection(
        str(file),
        info,
        tensors,
        explained,
        read_signature(content, str(file)),
        half,
        zeros_between(Path(file), Path(samples)) if samples is not None else None,
        tuple(features(content, str(file))) if with_features else None,
        _names(pipeline) if pipeline is not None else {},
    )


def _names(pipeline: str | Path) -> dict[str, tuple[str, ...]]:
    """What a pipeline's data calls its values and labels; loads it."""
    from edgesparse import data

    loaded = load_pipeline(pipeline)
    dataset = data.load(loaded.spec.data, loaded.folder)
    return {**value_names(dataset.transforms), "labels": dataset.class_names}
