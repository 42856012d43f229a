"""What stages share, and how they leave and find what they made."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.devices.transport import Transport
from edgesparse.pipeline.plan import Stage
from edgesparse.pipeline.store import Store
from edgesparse.spec.edgetpu import EdgeTpu
from edgesparse.spec.load import Loaded
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.tflite.compatibility import Profile

if TYPE_CHECKING:
    from edgesparse.data import Dataset

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Context:
    """What stages share. `transport` reaches the device whose runtimes verify the models.

    `host` reaches this machine, when that is another one; `host_runtimes` are its own.
    """

    loaded: Loaded[Pipeline]
    store: Store
    transport: Transport
    run: str
    host: Transport | None = None
    host_runtimes: tuple[str, ...] = ()
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """What each runtime, by its name, does with sparse storage there."""
    tpu: EdgeTpu | None = None
    """How the device's Edge TPU gets its models."""
    golden_samples: int | None = None
    """How many golden samples a slow device answers; default: all."""
    stop: threading.Event | None = None

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.spec

    @cached_property
    def dataset(self) -> Dataset:
        from edgesparse import data

        return data.load(self.pipeline.data, self.loaded.folder)

    def variant(self, stage: Stage) -> Variant:
        return self.pipeline.variants[stage.variants[0]]


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def replace_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Write whole or not at all, into a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1, sort_keys=sort_keys) + "\n")
    os.replace(part, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
