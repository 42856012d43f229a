"""The pipeline file: data, model, training, variants and measurement."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.auto_variants import EPOCHS, default_variants
from edgesparse.spec.base import Name, Strict, require_one
from edgesparse.spec.search import Search
from edgesparse.spec.sparsify import (
    OneShot,
    SparsifyReference,
    Steps,
    leaves_zeros,
    shorthand,
)
from edgesparse.spec.step import Distillation, Fraction, require_epochs
from edgesparse.spec.task import Tasks
from edgesparse.spec.training import Train as Train

Scheme = Literal["f32", "f16", "dynamic", "int8", "uint8", "int16x8"]
Numbers = Literal["f32", "f16", "dynamic", "int8", "int16x8"]
Storage = Literal["auto", "dense", "sparse"]
ROW_METRICS = (
    "agreement", "bytes", "sparsity", "p50_ms", "p90_ms", "p99_ms", "speedup", "peak_rss_bytes",
)  # fmt: skip
"""Metrics of every row, beside those of its task."""
TASK_METRICS = (
    "accuracy", "auc", "exact", "f1", "mae", "mAP", "mean-iou", "pixel-accuracy", "psnr", "r2",
    "rmse", "top-5",
)  # fmt: skip
"""Metrics of the built-in tasks; which of them a pipeline has depends on its model."""


class Source(Strict):
    """A built-in by name, or your own function by reference."""

    name: str | None = Field(None, description="Name of a built-in.")
    ref: str | None = Field(
        None,
        description="Your own function: file.py:function beside the YAML file, or module:function.",
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of the function.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        require_one(self, ("name", "ref"))
        return self


class ModelSource(Source):
    """The model: a function that builds it, a saved model, or a PyTorch network."""

    ref: str | None = Field(
        None,
        description="Your own file.py:function, or a saved model: a .keras or .h5 file of Keras 2 "
        "or 3, or a SavedModel folder, which is only converted.",
    )
    weights: str | None = Field(
        None, description="A weights file (.weights.h5, .h5) for the model that is built; for "
        "torch its state_dict (.pt, .safetensors)."
    )  # fmt: skip
    torch: str | None = Field(
        None, description="A PyTorch network as my_net.py:build, which is only converted."
    )
    input_shape: list[int | str] = Field(
        [], description="Of torch: [1, 3, 224, 224]; of several inputs ['1x3x9x9', '1x128:int64']."
    )
    custom_objects: list[str] = Field(
        [],
        description="Layers and functions of a saved model: file.py:Class, or a plug-in's.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> ModelSource:
        require_one(self, ("name", "ref", "torch"))
        return self


class Quantize(Strict):
    """Number format of the .tflite file."""

    scheme: Scheme = Field(
        "f32",
        description="f32, f16 (weights), dynamic (int8 weights), int8 (weights, activations, I/O), "
        "uint8 (int8 with uint8 I/O, as from a camera), int16x8 (int16 activations, int8 weights).",
    )
    compute: Literal["f32", "f16"] = Field(
        "f32",
        description="f32 and f16: precision of the arithmetic; f16 takes a CPU with FP16 "
        "instructions, which compute twice as many values at a time. Weights are then stored "
        "densely, zeros included.",
    )
    qat: bool = Field(
        False,
        description="int8 and uint8: quantization-aware training that keeps the zeros (PQAT).",
    )
    epochs: int = Field(3, ge=0, le=100_000, description="Epochs of quantization-aware training.")
    learning_rate: float | None = Field(
        None, gt=0, description="Default: a tenth of train.learning_rate."
    )
    batch_size: int | None = Field(
        None, ge=1, le=65_536, description="With `qat`: samples per training step; default: "
        "train.batch_size."
    )  # fmt: skip
    distill: Distillation = Field(
        None, description="With `qat`: train towards the dense model's outputs, as in a step."
    )
    calibration_samples: int = Field(
        200, ge=1, le=100_000, description="Size of the representative dataset, from training data."
    )
    bias_correction: bool | None = Field(
        None,
        description="int8 and uint8: correct biases for the shift of layer means by weight "
        "rounding, on the calibration samples and without labels, where that lowers the output "
        "error. Default: where 'one-shot' left zeros without fine-tuning.",
    )

    @model_validator(mode="after")
    def _qat_is_int8(self) -> Quantize:
        if self.qat and self.numbers != "int8":
            raise PydanticCustomError("qat", "'qat: true' requires 'scheme: int8'")
        return self

    @model_validator(mode="after")
    def _distills_in_training(self) -> Quantize:
        if self.distill is not None and not self.qat:
            raise PydanticCustomError("distill", "'distill' requires 'qat: true'")
        require_epochs(self.distill, self.epochs)
        return self

    @model_validator(mode="after")
    def _biases_are_integers(self) -> Quantize:
        if self.bias_correction and self.numbers != "int8":
            raise PydanticCustomError(
                "bias_correction", "'bias_correction' requires 'scheme: int8'"
            )
        return self

    @model_validator(mode="after")
    def _half_is_float(self) -> Quantize:
        if self.compute == "f16" and self.scheme not in ("f32", "f16"):
            raise PydanticCustomError("compute", "'compute: f16' requires 'scheme: f16' or f32")
        return self

    @property
    def numbers(self) -> Numbers:
        """Number format of operators: uint8 differs from int8 only in inputs and outputs."""
        return "int8" if self.scheme == "uint8" else self.scheme


class Variant(Strict):
    """A named combination of steps, quantization and storage."""

    model: ModelSource | None = Field(
        None, description="Another model than the pipeline's, trained like that."
    )
    seed: int | None = Field(None, ge=0, description="Another seed than train.seed.")
    sparsify: Steps = Field(
        [], description="A step, or a list of steps, that remove weights; default: none."
    )
    quantize: Annotated[Quantize, shorthand("scheme")] = Field(
        Quantize(), description="A scheme's name, or a mapping."
    )
    storage: Storage = Field(
        "auto",
        description="auto: each weight in the form that its runtime exploits, else the smallest "
        "that runs at the same speed; sparse: the smallest form that the runtime accepts; dense: "
        "as the converter stores it.",
    )

    @model_validator(mode="after")
    def _half_is_dense(self) -> Variant:
        if self.quantize.compute == "f16" and self.storage == "sparse":
            raise PydanticCustomError(
                "compute",
                "'compute: f16' and 'storage: sparse' exclude each other: runtimes crash on such a "
                "file, or are slower",
            )
        return self

    @property
    def stores_sparse(self) -> bool:
        """True where weights can be stored sparse."""
        return self.has_zeros and self.storage != "dense" and self.quantize.compute != "f16"

    @property
    def has_own_training(self) -> bool:
        """True where it is trained apart from the pipeline's model."""
        return self.model is not None or self.seed is not None

    def shares_training_with(self, other: Variant) -> bool:
        """Return True where both start from the same trained model."""
        return self.model == other.model and self.seed == other.seed

    @property
    def has_zeros(self) -> bool:
        """True where a step makes zeros."""
        return any(leaves_zeros(step) for step in self.sparsify)

    @property
    def is_distilled(self) -> bool:
        """True where a fine-tuning learns from the dense model."""
        return any(part.distill is not None for part in (*self.sparsify, self.quantize))

    @property
    def corrects_biases(self) -> bool:
        """True where biases are corrected for the shift of layer means by int8."""
        if self.quantize.bias_correction is not None or self.quantize.numbers != "int8":
            return bool(self.quantize.bias_correction)
        untrained = any(isinstance(step, OneShot) and not step.epochs for step in self.sparsify)
        return untrained and not self.quantize.qat

    @property
    def references(self) -> list[tuple[int, SparsifyReference]]:
        """Steps by user-defined methods, with their indices."""
        steps = enumerate(self.sparsify)
        return [(i, step) for i, step in steps if isinstance(step, SparsifyReference)]


class Benchmark(Strict):
    """Rounds, runs and threads of the measurement of each variant on each runtime."""

    threads: list[Annotated[int, Field(ge=1, le=256)]] = Field(
        [1], min_length=1, description="Numbers of threads; one table each."
    )
    rounds: int = Field(
        5, ge=1, le=1000, description="Measuring processes per variant; variants take turns."
    )
    warmup_runs: int = Field(10, ge=0, description="Least warm-up runs per round.")
    warmup_seconds: float = Field(0.5, ge=0, le=3600, description="Least warm-up time per round.")
    min_runs: int = Field(200, ge=1, description="Least runs over all rounds.")
    min_seconds: float = Field(
        10.0, gt=0, le=86_400, description="Least measured time over all rounds."
    )
    test_samples: int = Field(500, ge=0, description="Test samples evaluated on the device.")
    timeout_seconds: float = Field(600.0, gt=0, description="Timeout of a measuring process.")
    input_shapes: dict[str, list[Annotated[int, Field(ge=1, le=100_000)]]] = Field(
        {}, description="Shapes, such as {x: [64, 3]}, for training and measurement where samples "
        "differ in size: cut or filled with zeros; dimensions stay dynamic in the file where the "
        "model's layers can, and the table says which were measured."
    )  # fmt: skip


class Verify(Strict):
    """Tolerance between the outputs of the .tflite file and the Keras model."""

    golden_samples: int = Field(
        32, ge=1, le=10_000, description="Golden samples, from validation data."
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        description="Largest difference to the Keras model's output, as a share of the outputs' "
        "range; default by scheme: f32 0.001, f16 0.02, half-precision arithmetic and int16x8 "
        "0.05, dynamic 0.15, int8 and uint8 0.2.",
    )
    min_agreement: Fraction | None = Field(
        None,
        description="Share of golden samples within the tolerance; default: 1.0 for f32 and f16, "
        "0.9 for others.",
    )


class Gate(Strict):
    """A limit that fails the run (exit code 3)."""

    variant: str = Field(description="The variant whose rows are checked.")
    metric: str = Field(
        description="Metric of the task, such as accuracy or mae, or its drop against the "
        "baseline, accuracy_drop; or agreement, bytes, sparsity, p50_ms, p90_ms, p99_ms, speedup, "
        "peak_rss_bytes."
    )
    min: float | None = Field(None, description="The value must be at least this.")
    max: float | None = Field(None, description="The value must be at most this.")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Gate:
        if self.min is None and self.max is None:
            raise PydanticCustomError("limit", "set 'min' or 'max' or both")
        return self


class Tracking(Strict):
    """An experiment tracker that results are also written to."""

    name: str = Field(description="mlflow, tensorboard, or the name of an installed plug-in.")
    uri: str | None = Field(
        None,
        description="mlflow: the server, default MLFLOW_TRACKING_URI; tensorboard: a folder, "
        "default the run's.",
    )
    experiment: str | None = Field(None, description="mlflow; default: the pipeline's name.")


def _list_of_one(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _empty_variants(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: {} if variant is None else variant for name, variant in value.items()}
    return value


class Pipeline(Strict):
    """A pipeline file."""

    _auto_variants: bool = PrivateAttr(False)

    name: Name = Field(
        description="Lower-case letters, digits, '.', '_' and '-'; also names releases and reports."
    )
    description: str = Field("", description="Free text.")
    data: Source = Field(description="Dataset, or loader of one.")
    model: ModelSource = Field(description="Model to train or convert.")
    task: Annotated[Tasks, shorthand("name")] = Field(
        Tasks(), description="Task of the model: a name, or a mapping; default: inferred."
    )
    metric: str | None = Field(
        None,
        description="The task's metric that counts: in tables, for the best epoch, for drops and "
        "releases; default: its first.",
    )
    train: Train = Field(Train(), description="Training of the dense model.")
    variants: Annotated[
        dict[Name, Variant],
        BeforeValidator(
            _empty_variants, json_schema_input_type=Literal["auto"] | dict[str, Variant | None]
        ),
    ] = Field(
        min_length=1,
        description="Variants of the model, by name; auto: a default set, of which a device skips "
        "those that are not faster there.",
    )
    baseline: str | None = Field(
        None, description="The variant that ratios refer to; default: the first."
    )
    benchmark: Benchmark = Field(Benchmark(), description="Measurement of variants.")
    verify: Verify = Field(Verify(), description="Tolerance of their outputs.")
    gates: list[Gate] = Field([], description="Limits that fail the run with exit code 3.")
    store: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9+.-]*://\S+$",
        description="URL of a store shared by several machines, such as s3://bucket/folder.",
    )
    tracking: Annotated[
        list[Annotated[Tracking, shorthand("name")]],
        BeforeValidator(_list_of_one, json_schema_input_type=Any),
    ] = Field([], description="mlflow, tensorboard, or a list: trackers of each run.")
    search: Search | None = Field(None, description="Search space of 'edgesparse search'.")
    release: Name | None = Field(
        None,
        description="Release on a device: a variant, none, or auto, the one to ship: of those that "
        "keep gates and metric and are not clearly slower than another, the one that loses least. "
        "Default: auto on a board, none on this machine.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _variants_by_themselves(cls, value: Any, build: Any) -> Any:
        is_auto = isinstance(value, dict) and value.get("variants") == "auto"
        if is_auto:
            train = value.get("train")
            epochs = train.get("epochs") if isinstance(train, dict) else None
            value = {
                **value,
                "variants": default_variants(epochs if type(epochs) is int else EPOCHS),
            }
        pipeline = build(value)
        pipeline._auto_variants = is_auto
        return pipeline

    def with_auto_variants(self) -> Pipeline:
        """Return a copy whose variants each device skips where they are not faster there."""
        copy = self.model_copy()
        copy._auto_variants = True
        return copy

    @property
    def has_auto_variants(self) -> bool:
        """True where devices skip variants that are not faster there."""
        return self._auto_variants

    def for_variant(self, variant: Variant) -> Pipeline:
        """Return the pipeline with the model and seed of a variant."""
        changed: dict[str, Any] = {}
        if variant.model is not None:
            changed["model"] = variant.model
        if variant.seed is not None:
            changed["train"] = self.train.model_copy(update={"seed": variant.seed})
        return self.model_copy(update=changed)

    @property
    def baseline_variant(self) -> str:
        return self.baseline or next(iter(self.variants))
