"""Chooses the storage of each weight of a model for a machine, with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from edgesparse.tflite.format.encode import Choose, Encoding, rewrite
from edgesparse.tflite.format.flatbuffer import Constant
from edgesparse.tflite.format.half_precision import computes_half
from edgesparse.tflite.format.sparse_layout import Dense, Form, Layout, along, blocks, fits
from edgesparse.tflite.runtimes.compatibility import OPS, Cell, Op, Profile, Scheme, Verdict
from edgesparse.tflite.runtimes.xnnpack import Path, sparse_paths

Mode = Literal["auto", "dense", "sparse"]
WORTH_BYTES = 400
"""Bytes that a sparse tensor and its DENSIFY add besides values and indices, at most."""
HARMLESS = 1.2
"""Accepted time of a layer relative to dense, in exchange for a smaller file."""
Paths = Mapping[tuple[int, int], Path]
"""Paths by subgraph and operator."""
BLOCK_WIDTH: dict[Form, int] = {"block-1x4": 4, "block-1x16": 16}


@dataclass(frozen=True)
class Decision:
    """The storage of a weight and its reason. `name` is the tensor's.

    `stored_share` is the share of stored elements, including zeros in blocks; `speedup` is that of
    the sparse kernel, as expected, None where the dense kernel runs.
    """

    name: str
    op: str
    form: Form
    dense_bytes: int
    stored_bytes: int
    stored_share: float
    speedup: float | None
    reason: str
    held_back: bool = False
    """It has enough zeros, but the runtime does not support them."""
    exploited: bool = False
    """Its zeros are expected to save time."""


HALF_IS_DENSE = "half-precision arithmetic is enabled: sparse storage would crash or be slower"


@dataclass(frozen=True)
class _Option:
    form: Form
    layout: Layout
    stored_bytes: int
    stored_share: float
    verdict: Verdict

    @property
    def relative_time(self) -> float:
        """Time of the layer relative to dense."""
        return 1.0 if self.verdict.cost is None else self.stored_share * self.verdict.cost


def store(
    content: bytes, profile: Profile, mode: Mode, name: str = "model.tflite"
) -> tuple[bytes, tuple[Decision, ...]]:
    """Store each weight in the form that the machine exploits, else in the smallest that it runs.

    Args:
        mode: auto: not slower than dense; sparse: the smallest form that runs; dense.

    Returns:
        The file, and the decision for each weight.

    Raises:
        UsageError: the file is damaged.
    """
    decisions: list[Decision] = []
    half = computes_half(content, name)

    def chooser(model: Any, all_constants: Sequence[Constant]) -> Choose:
        paths = paths_in(model, all_constants, profile)

        def choose(constant: Constant) -> Encoding | None:
            if not is_candidate(constant):
                return None
            decision, encoding = decide(constant, profile, "half" if half else mode, paths)
            decisions.append(decision)
            return encoding

        return choose

    return rewrite(content, chooser, name), tuple(decisions)


def paths_in(model: Any, all_constants: Sequence[Constant], profile: Profile) -> Paths:
    """Return the path of each 1x1 convolution in XNNPACK; empty without a sparse path.

    `all_constants` are those of `model`; reading a damaged one can raise anything.
    """
    if not profile.sparse_path.exists:
        return {}
    return sparse_paths(model, [c for c in all_constants if c.slot == 1], profile.sparse_path)


def is_candidate(constant: Constant) -> bool:
    """Return whether a constant is a weight, and not a bias or another parameter."""
    return constant.is_weight and constant.slot == 1 and constant.op in OPS


def scheme_of(constant: Constant) -> Scheme | None:
    """Return the scheme of an operator; None for one that the table lacks."""
    weights, activations = constant.values.dtype.name, constant.activation_dtype
    if weights == "float32" and activations == "float32":
        return "f32"
    if weights == "float16":
        return "f16"
    if weights != "int8" or activations not in ("int8", "float32"):
        return None
    kind = "int8" if activations == "int8" else "dynamic"
    per_channel = constant.op == "FULLY_CONNECTED" and constant.scales > 1
    return cast(Scheme, f"{kind}-per-channel" if per_channel else kind)


def decide(
    constant: Constant, profile: Profile, mode: Mode | Literal["half"], paths: Paths
) -> tuple[Decision, Encoding | None]:
    """Decide on the storage of a weight; the encoding is None for dense.

    Args:
        mode: as for `store`; "half" is that of files with half-precision arithmetic.
        paths: those of the weight's model; see `paths_in`.
    """
    size = constant.values.nbytes

    def stay(reason: str, held_back: bool = False) -> tuple[Decision, None]:
        decision = Decision(
            constant.name, constant.op, "dense", size, size, 1.0, None, reason, held_back
        )
        return decision, None

    if mode == "dense":
        return stay("storage: dense")
    if mode == "half":
        return stay(HALF_IS_DENSE, held_back=bool(constant.zeros))
    scheme = scheme_of(constant)
    # A sparse form skips only zeros that are stored as 0.
    if scheme is None or constant.zero_point != 0:
        return stay("weights of this dtype have no sparse form")
    dense = Dense(constant.values)
    why = densify_obstacle(paths) if scheme in ("f32", "f16") else ""
    options = list(_options(constant, dense, scheme, profile, why))
    # An additional tensor and a DENSIFY take bytes, too.
    smaller = [o for o in options if o.stored_bytes + WORTH_BYTES < size]
    if not smaller:
        share = dense.zeros / max(1, dense.values.size)
        few = f"{share:.0%} zeros are too few for a smaller file"
        return stay(few if dense.zeros else "no zeros")
    runtime = f"{profile.machine.runtime} {profile.machine.version}"
    running = [o for o in smaller if o.verdict.runs]
    if not running:
        return stay(f"{runtime} rejects it sparse: {smaller[0].verdict.why}", held_back=True)
    best = _best(running, mode)
    if best is None:
        fastest = min(running, key=lambda o: o.relative_time)
        slower = f"its {fastest.form} kernel takes {fastest.relative_time:.1f}x the time of dense"
        refused = [o.verdict.why for o in smaller if not o.verdict.runs][:1]
        return stay(f"{runtime}: {'; '.join([*refused, slower])}", held_back=True)
    path = paths.get((constant.graph, constant.operator))
    skipped = path is not None and path.state == "taken" and best.form == "densify"
    speedup = None if best.verdict.cost is None else 1 / max(best.relative_time, 1e-3)
    decision = Decision(
        name=constant.name,
        op=constant.op,
        form=best.form,
        dense_bytes=size,
        stored_bytes=best.stored_bytes,
        stored_share=best.stored_share,
        speedup=speedup,
        reason=reason_for(profile, constant.op, best.stored_share, best.verdict, path),
        exploited=skipped or best.verdict.exploits(best.stored_share),
    )
    return decision, Encoding(best.layout, best.form == "densify")


def _best(running: Sequence[_Option], mode: Mode) -> _Option | None:
    """Return the form to store: one that saves time, else one that saves bytes at no cost; None
    where dense is better."""
    exploited = [o for o in running if o.verdict.exploits(o.stored_share)]
    if mode == "auto" and exploited:
        return min(exploited, key=lambda o: o.relative_time)
    harmless = [o for o in running if o.relative_time <= HARMLESS]
    candidates = harmless if mode == "auto" else running
    return min(candidates, key=lambda o: (o.stored_bytes, o.relative_time), default=None)


def densify_obstacle(paths: Paths) -> str:
    """Return why a model's weights cannot be stored sparse with DENSIFY; empty where they can."""
    return next((path.reason for path in paths.values() if path.state == "wrong"), "")


def _options(
    constant: Constant, dense: Dense, scheme: Scheme, profile: Profile, densify_obstacle: str
) -> Iterator[_Option]:
    """Yield every form that fits the weight, with its smallest layout."""
    shape = constant.values.shape
    rank = len(shape)
    any_layout = [along(rank, dimension) for dimension in range(rank) if shape[dimension] > 1]
    any_layout += [blocks(rank, width) for width in BLOCK_WIDTH.values()]
    forms: dict[Form, list[Layout]] = {"densify": any_layout}
    if constant.op == "FULLY_CONNECTED" and rank == 2:
        forms["random"] = [along(2, 1)]
        forms |= {form: [blocks(2, width)] for form, width in BLOCK_WIDTH.items()}
    for form, layouts in forms.items():
        verdict = profile.verdict(Cell(cast(Op, constant.op), scheme, form))
        if densify_obstacle and form == "densify":
            verdict = Verdict(False, why=densify_obstacle)
        sizes = {o: dense.stored_bytes(o) for o in layouts if fits(o, shape)}
        if sizes:
            best = min(sizes, key=lambda layout: sizes[layout])
            share = dense.stored_elements(best) / max(1, dense.values.size)
            yield _Option(form, best, sizes[best], share, verdict)


def reason_for(profile: Profile, op: str, share: float, verdict: Verdict, path: Path | None) -> str:
    """Explain the speed of a weight of which a `share` of elements is stored."""
    runtime = f"{profile.machine.runtime} {profile.machine.version}"
    if verdict.cost is None:
        if path is not None and path.state == "taken":
            return f"{runtime} skips its zeros on XNNPACK's sparse path: {path.reason}"
        why = path.reason if path is not None else ""
        if op == "CONV_2D" and not why:
            why = profile.sparse_path.why
        because = f" ({why})" if why else ""
        return f"{runtime} converts it to dense at load time: smaller file, same speed{because}"
    speedup = 1 / max(share * verdict.cost, 1e-3)
    gain = f"about {speedup:.1f}x faster than dense"
    if speedup < 1.05:
        slower = f"{1 / speedup:.1f}x slower than dense"
        gain = f"but about {'as fast as dense' if speedup > 0.95 else slower}"
    return f"{runtime} skips its zeros: {share:.0%} of it is stored, {gain}"


def summary(decisions: Sequence[Decision]) -> list[str]:
    """Return a line for each reason for which weights with zeros are stored dense."""
    counted = Counter(d.reason for d in decisions if d.form == "dense" and d.held_back)
    return [
        f"{count} weight{'s' if count > 1 else ''} stored dense: {reason}"
        for reason, count in counted.items()
    ]
