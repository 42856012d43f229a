"""What a stage is: to the graph a node with a key, to the machine that runs it a piece of work.

All of it but `Devices` can be sent to another process: most stages run in one of their own, because
TensorFlow, or a user's code, can take the process down with it.
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
from edgesparse.spec.code.inputs import Inputs
from edgesparse.spec.edgetpu import EdgeTpu
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.reading.load import DEVICES, Loaded
from edgesparse.spec.training import Train
from edgesparse.tflite.runtimes.compatibility import Profile

if TYPE_CHECKING:
    from edgesparse.data import Dataset
    from edgesparse.methods.training.recipe import Recipe

# Libraries by what they shape: a stage's key has the versions of those that shape its result, so
# that an upgrade makes anew what it may change and nothing else.
DATA_LIBRARIES = ("numpy", "scikit-learn")
KERAS_LIBRARIES = ("tensorflow", "tf-keras", "numpy")
TOOLKIT_LIBRARIES = (*KERAS_LIBRARIES, "tensorflow-model-optimization")

NOTES = "notes.json"


@dataclass(frozen=True)
class Stage:
    """A node of the graph. `inputs` maps a role to the key of the artifact that plays it."""

    name: str
    label: str
    variants: tuple[str, ...]
    version: int
    spec: Mapping[str, Any]
    """What of the pipeline, and of the files it names, the result depends on."""
    inputs: Mapping[str, str]
    libraries: Mapping[str, str]

    @cached_property
    def key(self) -> str:
        """sha256 over everything that shapes the result; label and variants do not, so that
        variants that ask for the same thing share a stage."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What the key is made of."""
        return {
            "stage": self.name,
            "version": self.version,
            "spec": dict(self.spec),
            "inputs": dict(self.inputs),
            "libraries": dict(self.libraries),
        }


@dataclass(frozen=True)
class Context:
    """What the stages of one plan for one device share."""

    loaded: Loaded[Pipeline]
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """What each runtime, by its name, does with sparse storage there."""
    tpu: EdgeTpu | None = None
    """How the device's Edge TPU gets its models."""
    golden_samples: int | None = None
    """How many golden samples a slow device answers; default: all."""
    own_code: str = ""
    """Identity of the user's code that stages import; empty where there is none."""
    inputs: Inputs = field(default_factory=Inputs)
    """What the plan's keys were made of."""
    project: Path | None = None
    whole: Context | None = None
    """Of a variant with its own model: what it shares with the others."""

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.spec

    @cached_property
    def data(self) -> Dataset:
        """What the pipeline's data is, before it is known what it is for; samples have one size."""
        if self.whole is not None:
            if (self.scaled_by is None) != (self.whole.scaled_by is None):
                raise UsageError(
                    "image-folder: of the variants' models some scale pixels themselves and some "
                    "do not; say 'scale' in the data's args, 1 for pixels of 0 to 255"
                )
            return self.whole.data
        from edgesparse.data import lengths

        return lengths.closed(self._raw, self.pipeline.benchmark.input_shapes)

    def damaged_file(self) -> str | None:
        """After TensorFlow failed to read the data: which file, and why."""
        raw = vars(self.whole or self).get("_raw")
        return None if raw is None else raw.damaged()

    @property
    def watched(self) -> tuple[Path, ...]:
        """The folders whose files the user's code may read: the project's, and the pipeline's."""
        return (self.project or self.loaded.folder, self.loaded.folder)

    def is_known(self, path: Path) -> bool:
        """Whether a file or folder is in the keys already, or is for edgesparse only."""
        inputs = self.inputs
        return (
            str(path) in inputs.files
            or str(path) in inputs.code
            or any(Path(folder) in (path, *path.parents) for folder in inputs.folders)
            or path == self.loaded.folder / self.loaded.path.name
            or path.parent == self.watched[0] / DEVICES
        )

    @property
    def open_inputs(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes of inputs whose samples differ in size, by their names."""
        from edgesparse.data import lengths

        return lengths.open_inputs((self.whole or self)._raw)

    @cached_property
    def _raw(self) -> Dataset:
        import tensorflow as tf

        from edgesparse import data

        source = self.pipeline.data
        if self.scaled_by is not None:
            source = source.model_copy(update={"args": {**source.args, "scale": 1.0}})
        # Before: random augmentation takes its seeds when it is put together.
        tf.keras.utils.set_random_seed(self.pipeline.train.seed)
        return data.load(source, self.loaded.folder)

    @cached_property
    def scaled_by(self) -> str | None:
        """The layer of the model that scales images, where data that would, too, was told nothing:
        then it gives pixels of 0 to 255."""
        from edgesparse import models
        from edgesparse.methods.network.inputs import pixels_scaled_by

        source = self.pipeline.data
        if source.name != "image-folder" or "scale" in source.args:
            return None
        model = models.build(self.pipeline.model, self.loaded.folder)
        return pixels_scaled_by(model) if getattr(model, "inputs", None) else None

    @cached_property
    def recipe(self) -> Recipe:
        """How the pipeline's model is trained on its data, and judged. Raises UsageError."""
        from edgesparse import models
        from edgesparse.methods.network import functional
        from edgesparse.methods.training.recipe import compiled_with, put_together

        pipeline, base = self.pipeline, self.loaded.folder
        model = models.build(pipeline.model, base)
        compiled = compiled_with(model, pipeline.train)
        flat = functional.functional(model, self.data.inputs, models.label(pipeline.model))
        return put_together(
            flat, self.data, pipeline.train, pipeline.task, pipeline.metric, base, compiled
        )

    @cached_property
    def _alone(self) -> dict[str, Context]:
        return {}

    def of(self, stage: Stage) -> Context:
        """What a stage works with: the pipeline as its variants have it."""
        variant = self.pipeline.variants.get(stage.variants[0]) if stage.variants else None
        if variant is None or not variant.has_own_training:
            return self
        own = self.pipeline.for_variant(variant)
        name = json.dumps([own.model.model_dump(mode="json"), own.train.seed], sort_keys=True)
        if name not in self._alone:
            loaded = replace(self.loaded, spec=own)
            self._alone[name] = replace(self, loaded=loaded, whole=self)
        return self._alone[name]

    @cached_property
    def dataset(self) -> Dataset:
        """The data, with how models are trained on it."""
        return replace(self.data, recipe=self.recipe)

    @cached_property
    def train(self) -> Train:
        """The training's settings; a compiled model keeps its learning rate."""
        train, own = self.pipeline.train, self.recipe.compiled.learning_rate
        if own is None or "learning_rate" in train.model_fields_set:
            return train
        return train.model_copy(update={"learning_rate": own})


@dataclass(frozen=True)
class Devices:
    """How stages reach devices. `transport` is that of the device whose runtimes count.

    `host` reaches this machine, when that is another one; `host_runtimes` are its own.
    """

    transport: Transport
    run: str
    host: Transport | None = None
    host_runtimes: tuple[str, ...] = ()
    stop: threading.Event | None = None


@dataclass(frozen=True)
class Work:
    """A stage to be carried out: where its inputs lie, and the folder to fill."""

    stage: Stage
    context: Context
    inputs: Mapping[str, Path]
    """The folder of each input, by its role."""
    folder: Path
    progress: Progress
    ask: Callable[[Any], Any]
    """For what only the process that reaches devices can do; see Kind.answer."""
    devices: Devices | None = None
    """None in a process of its own."""

    @property
    def pipeline(self) -> Pipeline:
        return self.context.pipeline

    @property
    def variant(self) -> Variant:
        """Those that share a stage say the same about it."""
        return self.pipeline.variants[self.stage.variants[0]]

    @contextmanager
    def dataset(self) -> Iterator[Dataset]:
        """The data to train on. What is trained on it goes on where it was, if the stage is
        interrupted before the end of this block."""
        from edgesparse.methods.training.checkpoints import Interrupted

        # Beside the store: a killed run's own folder is swept.
        kept = Interrupted(self.folder.parent.with_name("interrupted") / self.stage.key)
        yield replace(self.context.dataset, interrupted=kept)
        kept.done()

    def notes_of(self, role: str) -> list[str]:
        """What the steps so far have to say under the table."""
        path = self.inputs[role] / NOTES if role in self.inputs else None
        return list(json.loads(path.read_text())) if path is not None and path.exists() else []


@dataclass(frozen=True)
class Kind:
    """A sort of stage. `run` raises EdgesparseError where the work cannot be done."""

    name: str
    version: int
    """To be raised when the same input starts to give another result."""
    libraries: tuple[str, ...]
    run: Callable[[Work], None]
    in_child: bool = True
    """Whether it runs in a process of its own; those that ask devices do not: what can crash there
    runs in the agent's processes."""
    loads: bool = True
    """Whether it loads the pipeline's code, data or models, and not only what stages have left."""
    answer: Callable[[Stage, Context, Devices, Any], Any] | None = None
    """What `Work.ask` gets, found where devices can be reached."""


@contextmanager
def placed(work: Work) -> Iterator[None]:
    """Says where in the file a mistake is that shows only now."""
    try:
        yield
    except UsageError as error:
        document = work.context.loaded.document
        where = document.where(("variants", work.stage.variants[0], "sparsify"))
        raise UsageError(f"{where}: {error}") from error
