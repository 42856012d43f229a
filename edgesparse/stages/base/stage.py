"""The types of a stage: a node with a key in the graph, and the context in which it runs.

All of them but `Devices` can be pickled: most stages run in a worker process, because TensorFlow or
the user's code can crash it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.spec.code.run_inputs import Inputs
from edgesparse.spec.device import EdgeTpu
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.reading.load import DEVICES, Loaded
from edgesparse.spec.training import Train
from edgesparse.tflite.runtimes.compatibility import Profile

if TYPE_CHECKING:
    from edgesparse.data import Dataset
    from edgesparse.methods.training.recipe import Recipe

# A stage's key contains the versions of the libraries that its result depends on, so that an
# upgrade runs only the stages again whose result it can change.
DATA_LIBRARIES = ("numpy", "scikit-learn")
KERAS_LIBRARIES = ("tensorflow", "tf-keras", "numpy")
TOOLKIT_LIBRARIES = (*KERAS_LIBRARIES, "tensorflow-model-optimization")

NOTES = "notes.json"
_SCALED_DATA = ("image-folder", "tfrecord")
"""Built-in loaders that scale pixels, by their argument `scale`."""


@dataclass(frozen=True)
class Stage:
    """A node of the graph. `inputs` maps a role to the key of the artifact for it."""

    name: str
    label: str
    variants: tuple[str, ...]
    version: int
    spec: Mapping[str, Any]
    """The parts of the pipeline, and digests of its files, that the result depends on."""
    inputs: Mapping[str, str]
    libraries: Mapping[str, str]

    @cached_property
    def key(self) -> str:
        """sha256 of `identity`. It covers neither label nor variants, so that variants with the
        same settings share a stage."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        return {
            "stage": self.name,
            "version": self.version,
            "spec": dict(self.spec),
            "inputs": dict(self.inputs),
            "libraries": dict(self.libraries),
        }


@dataclass(frozen=True)
class PlanContext:
    """Shared by the stages of one plan for one device."""

    loaded: Loaded[Pipeline]
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """How each runtime, by its name, executes sparse weights on the device."""
    tpu: EdgeTpu | None = None
    """The settings of the device's Edge TPU and its compiler."""
    golden_samples: int | None = None
    """How many golden samples a slow device runs; default: all."""
    user_code: str = ""
    """Digest of the user's code that stages import; empty where there is none."""
    inputs: Inputs = field(default_factory=Inputs)
    """The code and files whose digests are in the plan's keys."""
    project: Path | None = None
    parent: PlanContext | None = None
    """The context of the whole pipeline, in that of a variant with its own model or seed."""

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.spec

    @cached_property
    def data(self) -> Dataset:
        """The pipeline's data, without a recipe; dynamic sizes are fixed to `input_shapes`."""
        if self.parent is not None:
            if (self.scaled_by is None) != (self.parent.scaled_by is None):
                raise UsageError(
                    "image-folder: the models of some variants scale pixels and those of others do "
                    "not; set 'scale' in the data's args, to 1 for pixels of 0 to 255"
                )
            return self.parent.data
        from edgesparse.data.dynamic_shapes import with_fixed_shapes

        return with_fixed_shapes(self._raw, self.pipeline.benchmark.input_shapes)

    def damaged_file(self) -> str | None:
        """Find the damaged file, and its problem, after TensorFlow failed to read the data."""
        raw = vars(self.parent or self).get("_raw")
        return None if raw is None else raw.find_damaged()

    @property
    def watched_folders(self) -> tuple[Path, ...]:
        """The folders in which reads by the user's code are tracked: project and pipeline."""
        return (self.project or self.loaded.folder, self.loaded.folder)

    def is_tracked(self, path: Path) -> bool:
        """Return whether a file or folder is in the keys already, or is a file of edgesparse."""
        inputs = self.inputs
        return (
            str(path) in inputs.files
            or str(path) in inputs.code
            or any(Path(folder) in (path, *path.parents) for folder in inputs.folders)
            or path == self.loaded.folder / self.loaded.path.name
            or path.parent == self.watched_folders[0] / DEVICES
        )

    @property
    def open_inputs(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes of inputs whose samples differ in size, by name."""
        from edgesparse.data.dynamic_shapes import dynamic_inputs

        return dynamic_inputs((self.parent or self)._raw)

    @cached_property
    def _raw(self) -> Dataset:
        import tensorflow as tf

        from edgesparse import data

        source = self.pipeline.data
        if self.scaled_by is not None:
            source = source.model_copy(update={"args": {**source.args, "scale": 1.0}})
        # Before loading: random augmentation takes its seeds when its layers are built.
        tf.keras.utils.set_random_seed(self.pipeline.train.seed)
        return data.load(source, self.loaded.folder)

    @cached_property
    def scaled_by(self) -> str | None:
        """The model's layer that scales pixels, unless `scale` is set: the data then keeps pixels
        at 0 to 255."""
        from edgesparse import models
        from edgesparse.methods.network.input_layers import pixels_scaled_by

        source = self.pipeline.data
        if source.name not in _SCALED_DATA or "scale" in source.args:
            return None
        model = models.build(self.pipeline.model, self.loaded.folder)
        return pixels_scaled_by(model) if getattr(model, "inputs", None) else None

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the model's training and evaluation on its data. Raises UsageError."""
        from edgesparse import models
        from edgesparse.methods.network import functional
        from edgesparse.methods.training.recipe import build_recipe, compiled_args

        pipeline, base = self.pipeline, self.loaded.folder
        model = models.build(pipeline.model, base)
        compiled = compiled_args(model, pipeline.train)
        flat = functional.functional(model, self.data.inputs, models.label(pipeline.model))
        return build_recipe(
            flat, self.data, pipeline.train, pipeline.task, pipeline.metric, base, compiled
        )

    @cached_property
    def _by_training(self) -> dict[str, PlanContext]:
        return {}

    def of(self, stage: Stage) -> PlanContext:
        """Return the context of a stage: that of its variants' model and seed."""
        variant = self.pipeline.variants.get(stage.variants[0]) if stage.variants else None
        if variant is None or not variant.has_own_training:
            return self
        pipeline = self.pipeline.for_variant(variant)
        name = json.dumps(
            [pipeline.model.model_dump(mode="json"), pipeline.train.seed], sort_keys=True
        )
        if name not in self._by_training:
            loaded = replace(self.loaded, spec=pipeline)
            self._by_training[name] = replace(self, loaded=loaded, parent=self)
        return self._by_training[name]

    @cached_property
    def networks(self) -> dict[str, dict[str, Any]]:
        """Facts about Keras models by the key of their artifact: several conversions start from
        the same model."""
        return {}

    @cached_property
    def dataset(self) -> Dataset:
        """The data with its recipe."""
        return replace(self.data, recipe=self.recipe)

    @cached_property
    def train(self) -> Train:
        """The settings of training; a compiled model keeps its learning rate."""
        train, compiled_rate = self.pipeline.train, self.recipe.compiled.learning_rate
        if compiled_rate is None or "learning_rate" in train.model_fields_set:
            return train
        return train.model_copy(update={"learning_rate": compiled_rate})


@dataclass(frozen=True)
class Devices:
    """Connections for stages. `transport` reaches the device of the plan.

    `host` reaches this machine, where the device is another one; `host_runtimes` are those
    installed here.
    """

    transport: Transport
    run: str
    host: Transport | None = None
    host_runtimes: tuple[str, ...] = ()
    stop: threading.Event | None = None


@dataclass(frozen=True)
class StageContext:
    """A stage while it runs: its inputs' folders, and the folder to fill."""

    stage: Stage
    plan: PlanContext
    inputs: Mapping[str, Path]
    """The folder of each input, by its role."""
    folder: Path
    progress: Progress
    request: Callable[[Any], Any]
    """Calls StageKind.handle_request in the process that reaches devices; returns its result."""
    devices: Devices | None = None
    """None in a worker process."""

    @property
    def pipeline(self) -> Pipeline:
        return self.plan.pipeline

    @property
    def variant(self) -> Variant:
        """The first of the variants that share this stage: its settings are the same in all."""
        return self.pipeline.variants[self.stage.variants[0]]

    @contextmanager
    def dataset(self) -> Iterator[Dataset]:
        """Yield the training data with checkpoints: an interrupted stage resumes from them."""
        from edgesparse.methods.training.checkpoints import StageCheckpoints

        # Beside the store: the temporary folder of a killed run is swept.
        checkpoints = StageCheckpoints(self.folder.parent.with_name("interrupted") / self.stage.key)
        yield replace(self.plan.dataset, checkpoints=checkpoints)
        checkpoints.done()

    def notes_of(self, role: str) -> list[str]:
        """Read the notes of an input for the table; none where it left none."""
        path = self.inputs[role] / NOTES if role in self.inputs else None
        return list(json.loads(path.read_text())) if path is not None and path.exists() else []


@dataclass(frozen=True)
class StageKind:
    """The definition of a stage in its file. `run` raises EdgesparseError where the stage fails."""

    name: str
    version: int
    """To be raised when the same inputs give another result."""
    libraries: tuple[str, ...]
    run: Callable[[StageContext], None]
    in_child: bool = True
    """Whether it runs in a worker process; stages that use devices do not: the parts that can crash
    run in the agent's processes."""
    loads: bool = True
    """Whether it loads the pipeline's code, data or models, and not only artifacts."""
    handle_request: Callable[[Stage, PlanContext, Devices, Any], Any] | None = None
    """Serves `StageContext.request` in the process that reaches devices."""


@contextmanager
def with_location(context: StageContext) -> Iterator[None]:
    """Says where in the file a mistake is that shows only now."""
    try:
        yield
    except UsageError as error:
        document = context.plan.loaded.document
        where = document.where(("variants", context.stage.variants[0], "sparsify"))
        raise UsageError(f"{where}: {error}") from error
