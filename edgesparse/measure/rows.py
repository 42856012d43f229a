"""What is known of one variant on one device: the rows of results, and the gates they must meet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgesparse.spec.safe.text import clean_all
from edgesparse.tflite.format.inspect import ModelInfo

# Wide enough for every run, and far from what a report could not compute with.
Size = Annotated[int, Field(ge=0, le=2**60)]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(ge=-1e15, le=1e15)]
Interval = tuple[Finite, Finite]
Clock = Literal["wall", "instructions"]


class Data(BaseModel):
    """Immutable; keys of a later version are left out, and texts are harmless wherever they are
    from."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, given: Any) -> Any:
        return clean_all(given)


class RuntimeInfo(Data):
    name: str
    version: str


class ModelFile(Data):
    """The .tflite that was measured. `sparsity` is over weights of two or more dimensions; `macs`
    are the multiply-accumulates of one inference, None where the file does not say how many.

    Of the network that it was made of: `active_parameters` is how many one inference reads, where
    that is less than all; `activation_zeros` the share among what rectifiers give, `activations` by
    layer; `experts` how often each was chosen, by layer.
    """

    sha256: str
    bytes: Size
    bytes_gzip: Size
    parameters: Size
    zeros: Size
    sparsity: Share
    storage: str
    macs: Size | None = None
    active_parameters: Size | None = None
    activation_zeros: Share | None = None
    activations: dict[str, Share] = {}
    experts: dict[str, list[Share]] = {}

    @classmethod
    def of(cls, info: ModelInfo) -> ModelFile:
        """What was read from the file itself."""
        return cls(
            sha256=info.sha256,
            bytes=info.bytes,
            bytes_gzip=info.bytes_gzip,
            parameters=info.parameters,
            zeros=info.zeros,
            sparsity=info.sparsity,
            storage=info.storage,
            macs=info.macs,
        )


class Accuracy(Data):
    """Shares of samples classified right.

    `keras` is the Keras model's on the whole test split; `host` and `device` are the .tflite's on
    the same `samples`, on this machine and on the device (None on an emulated one); `drop` is the
    baseline's accuracy on the device (or host) minus this one's.
    """

    keras: Finite | None = None
    host: Finite | None = None
    device: Finite | None = None
    drop: Finite | None = None
    samples: Size

    @property
    def shown(self) -> float | None:
        return self.host if self.device is None else self.device


class Score(Data):
    """A metric of a task: a value per place where the model was asked, on the same `samples`, but
    for `keras`, which is over the whole test split, and `trained`, over what it was trained on.

    `drop` is what is lost against the baseline, positive where it is worse, whatever `best` says;
    intervals are of 95 %, over samples. `unit` is "%" for shares.
    """

    name: str
    unit: str = ""
    best: Literal["highest", "lowest"] = "highest"
    keras: Finite | None = None
    trained: Finite | None = None
    host: Finite | None = None
    device: Finite | None = None
    drop: Finite | None = None
    ci95: Interval | None = None
    drop_ci95: Interval | None = None
    samples: Size
    chance: Finite | None = None
    """Of always the same answer."""

    @property
    def shown(self) -> float | None:
        return self.host if self.device is None else self.device

    @property
    def at_chance(self) -> bool:
        """Whether, by its interval, it may be no better than always the same answer."""
        if self.chance is None or self.shown is None:
            return False
        low, high = self.ci95 or (self.shown, self.shown)
        return low <= self.chance if self.best == "highest" else high >= self.chance

    @property
    def lost(self) -> bool:
        """Whether something is lost against the baseline beyond the interval."""
        return self.drop_ci95 is not None and self.drop_ci95[0] > 0


class Latency(Data):
    """Of one inference, in milliseconds; `ci95` is p50's interval; `by_round` the medians of the
    rounds, in their order."""

    p50: Finite
    p90: Finite
    p99: Finite
    mean: Finite
    std: Finite
    samples: Size
    rounds: Size
    ci95: Interval
    by_round: list[Finite] = []


class Cpu(Data):
    mhz_before: Finite | None
    mhz_after: Finite | None
    temperature_c: Finite | None
    throttled: bool | None


class Speedup(Data):
    """How many times faster than `baseline`, paired by round."""

    ratio: Finite
    ci95: Interval
    baseline: str


class EdgeTpuInfo(Data):
    """How a model lies on an Edge TPU; None for what the compiler's log did not say."""

    compiler: str | None
    """The compiler's version."""
    compiler_sha256: str | None
    source_sha256: str
    """Of the full-int8 .tflite that was compiled."""
    operators: int | None
    mapped_operators: int | None
    subgraphs: int | None
    on_chip_bytes: int | None
    on_chip_free_bytes: int | None
    off_chip_bytes: int | None
    """Streamed to the chip on every inference."""
    cpu_accuracy: float | None = None
    """Of the same weights on the device's CPU."""


class Stored(Data):
    """A weight of the file that was measured: how it is stored for its runtime, and why."""

    name: str
    operator: str
    form: str
    dense_bytes: Size
    stored_bytes: Size
    exploited: bool
    """Its zeros are expected to save time."""
    reason: str


PAYS_FROM = 1.02
"""A gain from which on something pays: less is what two measurements differ by."""


class LeftDense(Data):
    """A kernel that a step did not touch: its share of the weights, and why."""

    name: str
    share: Share
    reason: str


class Coverage(Data):
    """What the last step was asked for and what it reached: shares of zeros over all weights of two
    or more dimensions; and what it left dense, the largest first."""

    asked: Share
    reached: Share
    left: list[LeftDense] = []


class Row(Data):
    """One variant on one device, runtime and number of threads."""

    pipeline: str
    device: str
    runtime: RuntimeInfo
    delegate: str
    threads: int
    clock: Clock
    variant: str
    status: Literal["ok", "failed"]
    error: str | None = None
    notes: list[str] = []
    model: ModelFile | None = None
    steps: list[str] = []
    """The methods of the variant's sparsify; those that remove channels are "channels", those that
    remove inputs "inputs"."""
    numbers: str | None = None
    """What operators compute with: f32, f16 (in half precision), dynamic, int8, int16x8."""
    like: str | None = None
    """The first variant that differs in its seed only, where there are such."""
    zeros_exploited: bool | None = None
    """Whether its runtime is known to skip zeros of this file; None where nobody knows."""
    half_precision: bool | None = None
    """Where that was asked for: whether a probe or a timing has seen it."""
    weights: list[Stored] = []
    """Those with zeros or with a sparse form, in the file's order."""
    edgetpu: EdgeTpuInfo | None = None
    coverage: Coverage | None = None
    metrics: list[Score] = []
    """Of the task; the one that counts first."""
    details: dict[str, Any] = {}
    """Of the task, what is no single number: a confusion matrix, recall by class."""
    accuracy: Accuracy | None = None
    """Where it is one of the metrics."""
    agreement: Share | None = None
    latency_ms: Latency | None = None
    init_ms: Finite | None = None
    first_ms: Finite | None = None
    peak_rss_bytes: Size | None = None
    update_bytes: Size | None = None
    """What the file costs on the way to the device; None on this machine."""
    cpu: Cpu | None = None
    speedup: Speedup | None = None
    zeros_speedup: Speedup | None = None
    """What sparsity alone does: against the variant with the same numbers and no sparsify."""

    @property
    def score(self) -> Score | None:
        """The metric that counts; of a run before schema 2, accuracy."""
        if self.metrics or self.accuracy is None:
            return self.metrics[0] if self.metrics else None
        return Score(name="accuracy", unit="%", **self.accuracy.model_dump())


class GateResult(Data):
    """One gate on one row; `value` is None where the row has none."""

    variant: str
    metric: str
    device: str
    runtime: str
    threads: int
    value: Finite | None
    min: Finite | None
    max: Finite | None
    passed: bool
    doubt: str | None = None
    """Why that says little."""


def metric_of(row: Row, metric: str) -> float | None:
    """The value that a gate or a comparison means by a metric's name."""
    latency, model = row.latency_ms, row.model
    scores = row.metrics or ([row.score] if row.score else [])
    values: dict[str, float | None] = {
        **{score.name: score.shown for score in scores},
        **{f"{score.name}_drop": score.drop for score in scores},
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
