"""The compatibility table: how each runtime executes each form of sparse storage.

Each line was measured with files of this package, on x86-64 and on an emulated Cortex-A76 and -A72.
`edgesparse device probe` measures a device; its results take precedence over the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from edgesparse.delegate.choice import ChannelMultiple
from edgesparse.delegate.constants import Cpu
from edgesparse.delegate.cost import cpu_of
from edgesparse.tflite.format.sparse_layout import Form

Op = Literal["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]
Scheme = Literal["f32", "f16", "dynamic", "dynamic-per-channel", "int8", "int8-per-channel"]
"""Dtypes of weights and activations. Convolutions always have scales per channel, so that only
fully connected layers distinguish int8 and int8-per-channel."""

OPS: tuple[Op, ...] = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
KERNELS: tuple[Form, ...] = ("random", "block-1x4", "block-1x16")
PAYS = 0.9
"""A sparse kernel is used when it takes less than this share of the dense kernel's time."""


@dataclass(frozen=True)
class Machine:
    """A runtime on a machine. `features` are the CPU's, as Linux names them."""

    runtime: str
    version: str
    machine: str
    features: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Cell:
    """An operator, its scheme, and the form in which its weights are stored."""

    op: Op
    scheme: Scheme
    form: Form

    @property
    def name(self) -> str:
        return f"{self.op} {self.scheme} {self.form}"


@dataclass(frozen=True)
class Verdict:
    """The result of running a cell on a runtime.

    `cost` is the time per stored element of a sparse kernel, relative to an element of the dense
    one: with a share d of elements stored the layer takes about d * cost of the dense kernel's
    time. None where the form changes the file only. `why` is for messages.
    """

    runs: bool
    cost: float | None = None
    why: str = ""

    def exploits(self, stored_share: float) -> bool:
        """Return whether the layer is faster than dense with a share of elements stored."""
        return self.runs and self.cost is not None and stored_share * self.cost <= PAYS


def needs_one_scale(profiles: Iterable[Profile], scheme: str) -> bool:
    """Return whether a runtime refuses fully connected weights with a scale for each output."""
    if scheme != "dynamic":
        return False
    cell = Cell(_FC, "dynamic-per-channel", "dense")
    return any(not profile.verdict(cell).runs for profile in profiles)


@dataclass(frozen=True)
class Rule:
    """A line of the table; an empty or None field matches everything."""

    form: Form
    verdict: Verdict
    runtime: str = ""
    versions: str = ""
    op: Op | None = None
    schemes: tuple[Scheme, ...] = ()
    machine: str = ""
    feature: str = ""

    def fits(self, machine: Machine, cell: Cell) -> bool:
        return (
            self.form == cell.form
            and self.runtime in ("", machine.runtime)
            and self.op in (None, cell.op)
            and (not self.schemes or cell.scheme in self.schemes)
            and self.machine in ("", machine.machine)
            and (not self.feature or self.feature in machine.features)
            and (not self.versions or _within(machine.version, self.versions))
        )


def _within(version: str, versions: str) -> bool:
    try:
        return Version(version) in SpecifierSet(versions, prereleases=True)
    except InvalidVersion:
        return False


@dataclass(frozen=True)
class SparsePath:
    """Properties of XNNPACK's sparse path, which skips zeros of 1x1 convolutions, on a machine.

    `why` says why it does not exist. `fully_connected`: its rules include fully connected layers.
    `unary`: elementwise operators that it supports besides those of every version. `apart`:
    operators that the runtime does not delegate to XNNPACK, which split the network. `pixel_fails`:
    it fails, or its outputs are wrong, where the last convolution of a part has one pixel.
    """

    exists: bool
    why: str = ""
    fully_connected: bool = False
    unary: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    pixel_fails: bool = False


@dataclass(frozen=True)
class PathRule:
    """A line of the table of sparse paths; an empty field matches everything."""

    path: SparsePath
    runtime: str = ""
    versions: str = ""
    machine: str = ""
    feature: str = ""

    def fits(self, machine: Machine) -> bool:
        return (
            self.runtime in ("", machine.runtime)
            and self.machine in ("", machine.machine)
            and (not self.feature or self.feature in machine.features)
            and (not self.versions or _within(machine.version, self.versions))
        )


def _refuses(why: str) -> Verdict:
    return Verdict(False, why=why)


_RUNS = Verdict(True)
_DYNAMIC: tuple[Scheme, ...] = ("dynamic", "dynamic-per-channel")
_INT8: tuple[Scheme, ...] = ("int8", "int8-per-channel")
_TFLITE, _LITERT = "tflite-runtime", "ai-edge-litert"
_FC: Op = "FULLY_CONNECTED"

# The first matching line applies.
RULES: tuple[Rule, ...] = (
    # Dense.
    Rule(
        "dense",
        _refuses("its FULLY_CONNECTED supports no scales per channel with float inputs"),
        _TFLITE,
        op=_FC,
        schemes=("dynamic-per-channel",),
    ),
    Rule("dense", _RUNS),
    # Stored sparse, converted to dense at load time.
    Rule(
        "densify",
        _refuses("its FULLY_CONNECTED supports no scales per channel with float inputs"),
        _TFLITE,
        op=_FC,
        schemes=("dynamic-per-channel",),
    ),
    Rule("densify", _RUNS, _TFLITE),
    Rule("densify", _RUNS, _LITERT, op="DEPTHWISE_CONV_2D"),
    Rule(
        "densify",
        _refuses("its XNNPACK requires constant weights for dynamic-range quantization"),
        _LITERT,
        schemes=_DYNAMIC,
    ),
    Rule(
        "densify",
        _refuses("its XNNPACK requires constant int8 weights in fully connected layers"),
        _LITERT,
        ">=2.1",
        _FC,
        _INT8,
    ),
    Rule("densify", _RUNS, _LITERT),
    # Sparse kernels. Their costs: FULLY_CONNECTED 1024x1024 at 90 % zeros.
    Rule(
        "random",
        _refuses("it has this sparse kernel for f32 only"),
        schemes=("f16", *_DYNAMIC, *_INT8),
    ),
    Rule("random", Verdict(True, 5.8), _TFLITE, op=_FC, machine="x86_64"),
    Rule("random", Verdict(True, 4.9), _LITERT, op=_FC, machine="x86_64"),
    Rule("random", Verdict(True, 35.0), op=_FC),
    Rule(
        "block-1x4",
        _refuses("it has this sparse kernel for f32 only"),
        schemes=("f16", *_DYNAMIC, *_INT8),
    ),
    Rule("block-1x4", Verdict(True, 3.8), _TFLITE, op=_FC, machine="x86_64"),
    Rule("block-1x4", Verdict(True, 1.6), _LITERT, op=_FC, machine="x86_64"),
    Rule("block-1x4", Verdict(True, 9.7), _TFLITE, op=_FC),
    Rule("block-1x4", Verdict(True, 7.6), _LITERT, op=_FC),
    Rule("block-1x16", _refuses("it has this sparse kernel for int8 only"), schemes=("f32", "f16")),
    Rule(
        "block-1x16",
        _refuses("its sparse kernel ignores scales per channel (wrong results)"),
        _TFLITE,
        schemes=("int8-per-channel", "dynamic-per-channel"),
    ),
    Rule(
        "block-1x16",
        _refuses("it misreads block-sparse weights (wrong results)"),
        _LITERT,
        schemes=_DYNAMIC,
    ),
    Rule("block-1x16", Verdict(True, 7.5), _TFLITE, op=_FC, machine="x86_64"),
    Rule("block-1x16", Verdict(True, 8.5), _LITERT, op=_FC, machine="x86_64"),
    Rule("block-1x16", Verdict(True, 1.7), _TFLITE, op=_FC),
    Rule("block-1x16", Verdict(True, 12.9), _LITERT, op=_FC, feature="asimddp"),
    Rule("block-1x16", Verdict(True, 5.7), _LITERT, op=_FC),
)

_UNARY = ("EXP", "GELU", "SQRT", "TANH")

# XNNPACK's sparse path: the first matching line applies.
PATHS: tuple[PathRule, ...] = (
    PathRule(SparsePath(False, "XNNPACK has no sparse kernels on x86 with AVX"), machine="x86_64"),
    PathRule(
        SparsePath(True, apart=("EXP", "GELU", "LOG", "RSQRT")),
        _TFLITE,
        "==2.14.*",
        "aarch64",
        "asimdhp",
    ),
    PathRule(
        SparsePath(
            False,
            "tflite-runtime 2.14 needs half-precision arithmetic for it, which this CPU lacks; "
            "ai-edge-litert does not",
        ),
        _TFLITE,
        "==2.14.*",
        "aarch64",
    ),
    PathRule(
        SparsePath(True, fully_connected=True, unary=_UNARY, pixel_fails=True),
        _LITERT,
        ">=1.4,<2",
        "aarch64",
    ),
    PathRule(
        SparsePath(True, unary=_UNARY, pixel_fails=True),
        _LITERT,
        ">=2",
        "aarch64",
    ),
)


@dataclass(frozen=True)
class HalfPrecision:
    """Support of half-precision arithmetic by a runtime on a machine; `why` says why not.
    Measured: 1.9x on a Cortex-A76, no effect on a Cortex-A72, -A53 and x86 with AVX2."""

    exists: bool
    why: str = ""


def _half_precision(machine: Machine) -> HalfPrecision:
    if machine.runtime not in (_TFLITE, _LITERT):
        return HalfPrecision(False, "not measured with this runtime")
    if machine.machine == "x86_64":
        return HalfPrecision(False, "XNNPACK computes in 32 bits on x86")
    if machine.machine != "aarch64":
        return HalfPrecision(False, "not measured on this kind of CPU")
    if "asimdhp" not in machine.features:
        return HalfPrecision(False, "this CPU lacks half-precision arithmetic")
    return HalfPrecision(True)


_NO_PATH = SparsePath(False, "not measured: this runtime on this kind of CPU")
_PROBED_PATH = SparsePath(True, pixel_fails=True)
"""The path of an unknown runtime that a probe found, with the strictest conditions."""
SKIPS = 1.3
"""The speed-up by 90 % zeros from which on a runtime skips them; noise stays below."""

_UNKNOWN = _refuses("not measured yet")
_NO_KERNEL = _refuses("only fully connected layers have sparse kernels")


@dataclass(frozen=True)
class Profile:
    """The table for one machine; the results of a device's probe take precedence."""

    machine: Machine
    probed: Mapping[Cell, Verdict] = field(default_factory=dict)
    path_gain: float | None = None
    """Speed-up of the probe's network by zeros in its 1x1 convolutions; 0 where it failed."""
    half_gain: float | None = None
    """Speed-up of the probe's network by half precision; 0 where it failed."""
    delegate_factor: float | None = None
    """How many times its predicted time edgesparse's delegate took in the probe's network."""
    delegate: bool = False
    """The device loads edgesparse's delegate into the runtime."""
    channel_multiple: ChannelMultiple = field(default_factory=ChannelMultiple)
    """Widths that channel pruning leaves with `round_to: auto`."""

    def verdict(self, cell: Cell) -> Verdict:
        if cell in self.probed:
            return self.probed[cell]
        if cell.form in KERNELS and cell.op != _FC:
            return _NO_KERNEL
        return next((rule.verdict for rule in RULES if rule.fits(self.machine, cell)), _UNKNOWN)

    @property
    def sparse_path(self) -> SparsePath:
        path = next((rule.path for rule in PATHS if rule.fits(self.machine)), _NO_PATH)
        if self.path_gain is None or path.exists == (self.path_gain >= SKIPS):
            return path
        if path.exists:
            return SparsePath(False, "no speed-up from zeros in the device's probe")
        return _PROBED_PATH

    @property
    def cpu(self) -> Cpu | None:
        """Constants of edgesparse's delegate; None where it is not loaded or has no kernels."""
        machine = self.machine
        cpu = cpu_of(machine.machine, machine.features) if self.delegate else None
        return cpu.slower(self.delegate_factor) if cpu and self.delegate_factor else cpu

    @property
    def half_precision(self) -> HalfPrecision:
        support = _half_precision(self.machine)
        if self.half_gain is None or support.exists == (self.half_gain >= SKIPS):
            return support
        if support.exists:
            return HalfPrecision(False, "no speed-up in the device's probe")
        return HalfPrecision(True)

    def table(self, scheme: str) -> dict[str, float | str | None]:
        """Return the verdicts that the choice of storage depends on, for an artifact's key: devices
        with the same ones share files. `scheme` is a pipeline's: f32, f16, dynamic or int8."""
        verdicts: dict[str, float | str | None] = {}
        for cell in cells():
            if cell.scheme.removesuffix("-per-channel") == scheme:
                verdict = self.verdict(cell)
                verdicts[cell.name] = verdict.cost if verdict.runs else "refuses"
        if scheme in ("f32", "f16"):
            verdicts["sparse path"] = str(self.sparse_path) if self.sparse_path.exists else "none"
        return verdicts


def cells() -> tuple[Cell, ...]:
    """Return all cells of the table."""
    all_cells = []
    for op in OPS:
        schemes: tuple[Scheme, ...] = ("f32", "f16", "dynamic", "int8")
        forms: tuple[Form, ...] = ("dense", "densify")
        if op == _FC:
            schemes = (*schemes, "dynamic-per-channel", "int8-per-channel")
            forms = (*forms, *KERNELS)
        all_cells += [Cell(op, scheme, form) for scheme in schemes for form in forms]
    return tuple(all_cells)
