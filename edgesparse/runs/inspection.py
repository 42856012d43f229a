"""What is in a .tflite file, and which of its zeros pay on a device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgesparse.bench.rows import ModelFile
from edgesparse.graph.workspace import Workspace
from edgesparse.runs.fleet.probes import profiles
from edgesparse.runs.fleet.targets import open_target
from edgesparse.spec.device import Device
from edgesparse.spec.reading.load import find_device
from edgesparse.tflite.format.ends import Ends, ends
from edgesparse.tflite.format.inspect import ModelInfo, read_model
from edgesparse.tflite.format.inspect import inspect as inspect_file
from edgesparse.tflite.runtimes.explain import Explanation, TensorInfo, describe, explain


@dataclass(frozen=True)
class Inspection:
    """A file, its weights, and with a device what each of its runtimes makes of each weight; a
    runtime's key is "DEVICE | RUNTIME VERSION"."""

    file: str
    info: ModelInfo
    tensors: tuple[TensorInfo, ...]
    explained: Mapping[str, tuple[Explanation, ...]]
    ends: Ends

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.file,
            **ModelFile.of(self.info).model_dump(),
            "inputs": [asdict(end) for end in self.ends.inputs],
            "outputs": [asdict(end) for end in self.ends.outputs],
            "operators": dict(self.ends.operators),
            "custom": list(self.ends.custom),
            "tensors": [asdict(tensor) for tensor in self.tensors],
            "explained": {
                name: [asdict(line) for line in lines] for name, lines in self.explained.items()
            },
        }


def inspect(
    file: str | Path, device: str | Path | Device | None = None, *, project: str | Path = "."
) -> Inspection:
    """Describe every weight of a .tflite file, and say what pays on a device.

    Raises:
        EdgesparseError: the file cannot be read or is none; the device cannot be used.
    """
    content = read_model(Path(file))
    info, tensors = inspect_file(content, str(file)), describe(content, str(file))
    explained: dict[str, tuple[Explanation, ...]] = {}
    if device is not None:
        # The device is only asked what it is: weights are explained by what is known of it.
        with closing(open_target(find_device(device, Path(project)))) as target:
            known = profiles(target, Workspace(Path(project)))
        for name, profile in known.items():
            runtime = f"{target.device.name} | {name} {profile.machine.version}"
            explained[runtime] = explain(content, profile, str(file))
    return Inspection(str(file), info, tensors, explained, ends(content, str(file)))
