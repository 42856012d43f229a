"""Rows of results: one variant on one device, runtime and number of threads; and their gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from edgesparse.spec.safe.text import clean_all
from edgesparse.tflite.format.inspect import ModelInfo

# Wide enough for every run, and far from what a report could not compute with.
Size = Annotated[int, Field(ge=0, le=2**60)]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(ge=-1e15, le=1e15)]
Interval = tuple[Finite, Finite]
Clock = Literal["wall", "instructions"]
Direction = Literal["minimize", "maximize"]

CLEANED = object()
"""The validation context of a document whose texts are clean already."""


class Data(BaseModel):
    """Immutable data. Unknown keys (of a later version) are ignored; texts are made harmless."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.context is CLEANED else clean_all(value)


class RuntimeInfo(Data):
    """A runtime and its version."""

    name: str
    version: str


class DelegateTimes(Data):
    """Latencies in a short measurement on the device, by which the delegate was chosen."""

    xnnpack_ms: Finite
    edgesparse_ms: Finite


class ModelFile(Data):
    """The .tflite file that was measured."""

    sha256: str
    bytes: Size
    bytes_gzip: Size
    parameters: Size
    zeros: Size
    """Weights that are zero, of those of two or more dimensions."""
    sparsity: Share
    """Share of zeros, over weights of two or more dimensions."""
    storage: str
    """dense, or sparse where at least one weight is stored so."""
    macs: Size | None = None
    """Multiply-accumulates of one inference; null where the file does not determine it."""
    active_parameters: Size | None = None
    """Weights that one inference reads, where that is less than all."""
    activation_zeros: Share | None = None
    """Share of zeros in the outputs of rectifiers, over samples."""
    activations: dict[str, Share] = {}
    """The same, by layer."""
    experts: dict[str, list[Share]] = {}
    """How often each expert was chosen, by mixture-of-experts layer."""
    delegate_times: DelegateTimes | None = None
    """Only where predictions could not tell which delegate is faster."""

    @classmethod
    def of(cls, info: ModelInfo) -> ModelFile:
        """Take from an inspected file what results keep of it."""
        return cls.model_validate(info, from_attributes=True)


class Score(Data):
    """A metric of the task, by where the model was evaluated."""

    name: str
    unit: str = ""
    """"%" for shares (values are 0 to 1), else the metric's own."""
    direction: Direction = "maximize"
    """Which way the metric is better."""
    keras: Finite | None = None
    """The Keras model on all test samples."""
    keras_train: Finite | None = None
    """The Keras model on the training samples."""
    host: Finite | None = None
    """The .tflite file on this machine, on `samples` test samples."""
    device: Finite | None = None
    """The .tflite file on the device, on the same samples; null on an emulated device."""
    drop: Finite | None = None
    """Loss against the baseline on the same samples; positive is worse, whatever the direction."""
    ci95: Interval | None = None
    """95 % interval of the value, over samples."""
    drop_ci95: Interval | None = None
    """95 % interval of the drop, paired by sample."""
    samples: Size
    """Test samples that `host` and `device` were evaluated on."""
    chance_level: Finite | None = None
    """The metric's value for the best constant answer."""

    @property
    def shown(self) -> float | None:
        """The value on the device, or on this machine where the device has none."""
        return self.host if self.device is None else self.device

    @property
    def sign(self) -> int:
        """1 where larger is better, else -1."""
        return 1 if self.direction == "maximize" else -1

    @property
    def at_chance(self) -> bool:
        """True where the interval includes the chance level, or lies on its worse side."""
        if self.chance_level is None or self.shown is None:
            return False
        low, high = self.ci95 or (self.shown, self.shown)
        return low <= self.chance_level if self.sign > 0 else high >= self.chance_level


class Latency(Data):
    """The time of one inference in milliseconds (on an emulated device: its instructions)."""

    p50: Finite
    p90: Finite
    p99: Finite
    mean: Finite
    std: Finite
    samples: Size
    """Timed inferences."""
    rounds: Size
    ci95: Interval
    """95 % interval of p50, resampled by round."""
    by_round: list[Finite] = []
    """The median of each round, in order."""


class Cpu(Data):
    """The device's CPU during the measurement; null where the device does not report it."""

    mhz_before: Finite | None
    mhz_after: Finite | None
    temperature_c: Finite | None
    throttled: bool | None


class Speedup(Data):
    """The factor by which a row is faster than another variant, paired by round."""

    ratio: Finite
    ci95: Interval
    baseline: str
    """The other variant."""


class EdgeTpuInfo(Data):
    """A model compiled for an Edge TPU; null where the compiler's log does not state it."""

    compiler: str | None
    """The compiler's version."""
    compiler_sha256: str | None
    source_sha256: str
    """Digest of the full-int8 .tflite file that was compiled."""
    operators: int | None
    mapped_operators: int | None
    subgraphs: int | None
    on_chip_bytes: int | None
    on_chip_free_bytes: int | None
    off_chip_bytes: int | None
    """Weights streamed to the chip on every inference."""
    cpu_accuracy: float | None = None
    """Accuracy of the same weights on the device's CPU."""


class StoredWeight(Data):
    """A weight with zeros: its storage, chosen for the row's runtime."""

    name: str
    operator: str
    storage: str
    """dense, unstructured, block-1x4, ..."""
    dense_bytes: Size
    stored_bytes: Size
    exploited: bool
    """Whether its zeros are expected to save time."""
    reason: str
    """Why it is stored so."""


class Layer(Data):
    """An operator of the file, in the order of execution."""

    name: str
    """The Keras layer that it comes from."""
    operator: str
    weights: Size = 0
    """Its weights of two or more dimensions."""
    zeros: Size = 0
    """Of these weights."""
    storage: str = ""
    """Of its weights: dense, densify, block-1x4, ...; decoder: it decodes the weights of others;
    empty without weights."""
    dense_bytes: Size = 0
    """Size of its weights if stored dense."""
    stored_bytes: Size = 0
    """Size of its weights in the file."""
    macs: Size | None = None
    """Multiply-accumulates of one inference; null where shapes do not determine them."""
    taken: bool | None = None
    """Whether edgesparse's delegate runs it, as the delegate reported; null without a report."""
    why_left: str = ""
    """Why that delegate leaves it to the runtime."""
    time_ms: Finite | None = None
    """Median time of the operator alone, from a file of its own; null where it was not measured."""


PAYS_FROM = 1.02
"""Smallest speed-up that counts: two measurements of one file differ by up to 2 %."""


class LeftDense(Data):
    """A kernel that a step left dense."""

    name: str
    share: Share
    """Its share of all weights."""
    reason: str


class Coverage(Data):
    """Target and achieved share of zeros of the last step, over weights of two or more
    dimensions."""

    target: Share
    achieved: Share
    left_dense: list[LeftDense] = []
    """Kernels that the step left dense, the largest first."""


class Row(Data):
    """One variant on one device, runtime and number of threads."""

    pipeline: str
    device: str
    runtime: RuntimeInfo
    delegate: str
    """What ran the model: xnnpack, edgesparse, edgetpu or none."""
    threads: int
    clock: Clock
    """wall: time; instructions: an emulated device counts instructions, which are not time."""
    variant: str
    status: Literal["ok", "failed"]
    error: str | None = None
    """The cause where status is failed."""
    notes: list[str] = []
    model: ModelFile | None = None
    steps: list[str] = []
    """Methods of the variant's sparsify steps; "channels" for those that remove channels, "inputs"
    for those that remove inputs."""
    compute_dtype: str | None = None
    """What operators compute with: f32, f16, dynamic, int8 or int16x8."""
    seed_group: str | None = None
    """The first of the variants that differ only in their seed, where there are such."""
    zeros_exploited: bool | None = None
    """Whether the runtime is known to skip zeros of this file; null where that is unknown."""
    half_precision: bool | None = None
    """Where half precision was requested: whether a probe or a timing has confirmed it."""
    weights: list[StoredWeight] = []
    """Weights with zeros or sparse storage, in the file's order."""
    layers: list[Layer] = []
    """The file's operators, in the order of execution."""
    edgetpu: EdgeTpuInfo | None = None
    coverage: Coverage | None = None
    metrics: list[Score] = []
    """Metrics of the task; the first is the one that gates, drops and selection refer to."""
    details: dict[str, Any] = {}
    """Evaluation results that are not single numbers: a confusion matrix, recall by class."""
    agreement: Share | None = None
    """Share of golden outputs that equal the Keras model's within the scheme's tolerance."""
    latency_ms: Latency | None = None
    init_ms: Finite | None = None
    """Time to load the model, median of rounds."""
    first_inference_ms: Finite | None = None
    """Time of the first inference, median of rounds."""
    peak_rss_bytes: Size | None = None
    """Peak memory of the measuring process, runtime included."""
    transfer_bytes: Size | None = None
    """Compressed size of the file on the wire to the device; null on this machine."""
    cpu: Cpu | None = None
    speedup: Speedup | None = None
    """Against the pipeline's baseline."""
    speedup_vs_dense: Speedup | None = None
    """Against the variant with the same quantization without the last steps: the effect of
    sparsity alone."""
    predicted_speedup: Finite | None = None
    """The ratio of `speedup_vs_dense` as predicted before training; null where it was not."""

    def __str__(self) -> str:
        """Describe the row in a line: `sparse-int8 on pi (ai-edge-litert, 1 thread): 3 ms`."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        facts = [f"failed: {self.error}"] if self.status == "failed" else []
        if self.latency_ms is not None:
            unit = "ms" if self.clock == "wall" else "ms (instruction count)"
            facts.append(f"{self.latency_ms.p50:.4g} {unit}")
        if self.score is not None and self.score.shown is not None:
            shares = self.score.unit == "%"
            text = f"{self.score.shown:.1%}" if shares else f"{self.score.shown:.4g}"
            facts.append(
                f"{self.score.name} {text}" + (f" {self.score.unit}" if not shares else "")
            )
        if self.model is not None:
            facts.append(f"{self.model.bytes} bytes")
        label = f"{self.variant} on {self.device} ({self.runtime.name}, {threads})"
        return ": ".join(filter(None, [label, ", ".join(facts)])).strip()

    @property
    def score(self) -> Score | None:
        """The primary metric."""
        return self.metrics[0] if self.metrics else None


class GateResult(Data):
    """One gate of the pipeline, checked on one row."""

    variant: str
    metric: str
    device: str
    runtime: str
    threads: int
    delegate: str | None = None
    """null in results of earlier versions."""
    value: Finite | None
    """null where the row has no such value; the gate then fails."""
    min: Finite | None
    max: Finite | None
    passed: bool
    warning: str | None = None
    """Why the outcome is uncertain."""


def with_report(layers: Sequence[Layer], nodes: Sequence[tuple[str, str, str]]) -> list[Layer]:
    """Add what edgesparse's delegate reports on each operator: its name, "taken" or "left", why.

    A report on other operators is ignored: it comes from a device.
    """
    if len(nodes) != len(layers):
        return list(layers)
    return [
        layer.model_copy(update={"taken": state == "taken", "why_left": why})
        for layer, (_, state, why) in zip(layers, nodes, strict=True)
    ]


def metric_of(row: Row, metric: str) -> float | None:
    """Return the value of a gate's or objective's metric, None where the row has none.

    Args:
        metric: a metric of the task, that with "_drop", or one of `spec.pipeline.ROW_METRICS`.
    """
    latency, model = row.latency_ms, row.model
    values: dict[str, float | None] = {
        **{score.name: score.shown for score in row.metrics},
        **{f"{score.name}_drop": score.drop for score in row.metrics},
        "agreement": row.agreement,
        "bytes": model.bytes if model else None,
        "sparsity": model.sparsity if model else None,
        "p50_ms": latency.p50 if latency else None,
        "p90_ms": latency.p90 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "speedup": row.speedup.ratio if row.speedup else None,
        "peak_rss_bytes": row.peak_rss_bytes,
    }
    return values.get(metric)
