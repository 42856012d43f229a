"""Compression of a float .tflite file."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgesparse import __version__
from edgesparse.commands.bench import bench_files
from edgesparse.commands.compression.golden_outputs import LOOSE, TIGHT, write_golden
from edgesparse.commands.compression.result import Compressed, Deadline, write
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.graph import events
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.rows import Row
from edgesparse.measure.selection import best_row
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.safe.files import digest_of, replace_bytes
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.spec.safe.text import listed
from edgesparse.spec.step import Pattern
from edgesparse.tflite.format.appended import trailing_bytes
from edgesparse.tflite.format.inspect import read_model
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.operator_outputs import read_samples
from edgesparse.tflite.post_training import quantize
from edgesparse.tflite.post_training.calibration_samples import sample_shapes
from edgesparse.tflite.post_training.judgement import (
    OutputLoss,
    as_json,
    from_json,
    objection,
    uncertainty,
    worst,
)
from edgesparse.tflite.post_training.pruning import TIMEOUT_SECONDS, reconstruct
from edgesparse.tflite.runtimes.compatibility import Cell, Profile
from edgesparse.tflite.runtimes.storage import store
from edgesparse.tflite.verify import Limits

SPARSITIES = (0.7, 0.6, 0.5, 0.4, 0.3)
"""Tried in this order until the output error is within its limit."""

_LOOSE = ("int8", "dynamic")
"""Ends of the names of forms whose activations are in 8 bits."""
_METHODS = 2
"""Increased where kept levels would be others."""


@dataclass(frozen=True)
class _Candidate:
    """A file within the limit, and its share of zeros."""

    path: Path
    losses: tuple[OutputLoss, ...]
    sparsity: float | None = None


class _NothingRuns(EdgesparseError):
    """No smaller file runs on the device."""

    def __init__(self, source: Path, rows: Sequence[Row]) -> None:
        errors = [f"{row.variant}: {row.error}" for row in rows if row.error]
        super().__init__(f"{source}: no smaller file runs on the device; {listed(errors, 3, '; ')}")


def compress_file(
    project: Resources,
    source: Path,
    data: Path,
    device: DeviceName,
    target: Path,
    sparsity: float | None,
    max_error: float,
    deadline: Deadline,
    *,
    quick: bool,
    beside: Sequence[Path] = (),
) -> Compressed:
    """Compress a .tflite file; see `compress`.

    Args:
        beside: other forms of the file, which are within the limit.
    """
    content = read_model(source)
    with project.target(device) as connected:
        runtime_profiles = profiles(connected, project.workspace())
    if not runtime_profiles:
        raise EdgesparseError(f"device {connected.device.name} has no usable runtime")
    profile = next(iter(runtime_profiles.values()))
    devices = project.devices(device)
    kept = _kept_folder(project.workspace(), source, data)
    # Sizes that the file leaves open are those of the samples.
    shapes = {}
    if any(spec.is_dynamic for spec in read_signature(content, str(source)).inputs):
        shapes = sample_shapes(content, read_samples(data, content))
    sizes = [f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    options = [word for size in sizes for word in ("--input-shape", size)]
    command = shlex.join(["edgesparse", "bench", str(source), str(target), *options])

    def measured(candidates: Sequence[_Candidate], *, quick: bool) -> Compressed:
        """Measure candidates beside the original, check that each has the same outputs on the
        device as here, and write the best of them."""
        files = [source, *(candidate.path for candidate in candidates)]
        results = bench_files(
            project, files, devices, Benchmark(), command, sizes, quick=quick,
            golden=_golden(project, files[1:], data),
        )  # fmt: skip
        # A row's variant is called like its file, unless another has the name.
        names = list(dict.fromkeys(row.variant for row in results.rows))
        by_name = dict(zip(names[1:], candidates, strict=True))
        row = best_row([row for row in results.rows if row.variant in by_name], results.gates)
        if row is None:
            raise _NothingRuns(source, [r for r in results.rows if r.variant in by_name])
        best = by_name[row.variant]
        write(target, best.path.read_bytes())
        if (text := uncertainty(best.losses, max_error)) is not None:
            project.listener(events.Note(f"{best.path.stem}: {text}"))
        return Compressed(
            str(source), str(target), best.path.stem, len(content), best.path.stat().st_size,
            best.sparsity, max((loss.loss for loss in best.losses), default=0.0), results,
            tuple(f"{loss.output}: {loss.described}" for loss in best.losses),
        )  # fmt: skip

    with temporary_folder() as folder:
        forms = _dense(project, source, content, data, max_error, profile, folder, kept)
        dense = [*(_Candidate(path, ()) for path in beside), *forms]
        done = None
        with suppress(_NothingRuns):
            done = measured(dense, quick=True) if dense else None
        if done is not None:
            dense = [candidate for candidate in dense if candidate.path.stem == done.variant]
            project.listener(events.Note(f"wrote {target}: {done.change}; now zeros"))
        shares = [sparsity] if sparsity else list(SPARSITIES)
        try:
            sparse = _sparse(
                project, source, content, data, shares, max_error, profile, deadline, folder, kept
            )
        except EdgesparseError as error:
            if done is None:
                raise
            project.listener(events.Note(str(error)))
            return done if quick else measured(dense, quick=False)
        return measured([*dense, sparse], quick=quick)


def _golden(
    project: Resources, files: Sequence[Path], data: Path
) -> dict[Path, tuple[Path, Limits]]:
    """Write golden outputs beside each file, and note for which that fails."""
    golden = {}
    for file in files:
        expected = file.with_suffix(".npz")
        try:
            write_golden(file, data, expected, TIMEOUT_SECONDS)
            golden[file] = expected, LOOSE if file.stem.endswith(_LOOSE) else TIGHT
        except EdgesparseError as error:
            text = f"{file.stem}: its outputs are not checked on the device: {error}"
            project.listener(events.Note(text))
    return golden


def _dense(
    project: Resources,
    source: Path,
    content: bytes,
    data: Path,
    max_error: float,
    profile: Profile,
    folder: Path,
    kept: Path,
) -> Iterator[_Candidate]:
    """Yield the file with its zeros stored sparse, and its dense forms within the limit."""
    encoded, decisions = store(content, profile, "auto", source.name)
    if any(decision.form != "dense" for decision in decisions):
        path = folder / "stored.tflite"
        path.write_bytes(encoded + trailing_bytes(content, str(source)))
        if _is_smaller(project, path, content):
            yield _Candidate(path, ())
    schemes = quantize.DENSE_SCHEMES
    if not quantize.is_available():
        schemes = ("f16",)
        project.listener(events.Note(f"dense int8 forms were skipped: {quantize.INSTALL}"))
    for number, scheme in enumerate(schemes):
        with _level(project, f"quantize to {scheme}", number, len(schemes)):
            try:
                losses, stored = _resumed(
                    kept / f"{scheme}.tflite",
                    lambda path, scheme=scheme: quantize.quantize_file(  # type: ignore[misc]
                        source, data, scheme, path, TIMEOUT_SECONDS
                    ),
                )
            except EdgesparseError as error:
                project.listener(events.Note(f"{scheme}: {error}"))
                continue
        if (reason := objection(losses, max_error)) is not None:
            project.listener(events.Note(f"{scheme}: {reason}"))
            continue
        path = folder / f"{scheme}.tflite"
        path.write_bytes(stored + trailing_bytes(content, str(source)))
        if _is_smaller(project, path, content):
            yield _Candidate(path, tuple(losses))


def _is_smaller(project: Resources, path: Path, content: bytes) -> bool:
    """Return whether a file is smaller than the original, and note where it is not."""
    before, after = len(content), path.stat().st_size
    if after < before:
        return True
    sizes = f"{after / 1000:,.1f} kB, not smaller than the original's {before / 1000:,.1f} kB"
    project.listener(events.Note(f"{path.stem}: {sizes}"))
    return False


def _sparse(
    project: Resources,
    source: Path,
    content: bytes,
    data: Path,
    shares: Sequence[float],
    max_error: float,
    profile: Profile,
    deadline: Deadline,
    folder: Path,
    kept: Path,
) -> _Candidate:
    """Return the file with the most zeros within the limit. Raises EdgesparseError."""
    pattern: Pattern = "block-1x4" if _takes_blocks(profile) else "unstructured"
    nearest: list[OutputLoss] = []
    for number, share in enumerate(shares):
        deadline.check(source)
        with _level(project, f"reconstruct with {share:.0%} zeros", number, len(shares)) as done:
            losses, pruned = _resumed(
                kept / f"{pattern}-{share:g}.tflite",
                lambda path, share=share, done=done: _pruned(  # type: ignore[misc]
                    source, data, share, pattern, path, deadline, done
                ),
            )
        nearest = min(nearest or losses, losses, key=lambda every: worst(every).loss)
        if objection(losses, max_error) is None:
            break
    else:
        raise EdgesparseError(
            f"{source}: {objection(nearest, max_error)}; raise it, lower --sparsity, or add "
            "representative samples"
        )
    stored, _ = store(pruned, profile, "auto", source.name)
    path = folder / "sparse.tflite"
    path.write_bytes(stored + trailing_bytes(content, str(source)))
    if path.stat().st_size >= len(content):
        raise EdgesparseError(
            f"{source}: {share:.0%} sparsity does not shrink the file for {profile.machine.runtime}"
        )
    return _Candidate(path, tuple(losses), share)


def _pruned(
    source: Path,
    data: Path,
    share: float,
    pattern: Pattern,
    path: Path,
    deadline: Deadline,
    progress: Callable[[float], None],
) -> list[OutputLoss]:
    limit, errors = deadline.seconds_left, path.with_name(f"{pattern}-errors.json")
    try:
        return reconstruct(source, data, share, pattern, path, limit, progress, errors).losses
    except EdgesparseError:
        deadline.check(source)
        raise


@contextmanager
def _level(
    project: Resources, label: str, number: int, total: int
) -> Iterator[Callable[[float], None]]:
    """Report that a level begins and ends; what it yields is called with the progress between."""
    project.listener(events.StageStarted(label, number + 1, total))
    yield lambda share: project.listener(events.StageProgress(label, share, ""))
    project.listener(events.StageDone(label, number + 1, total))


def _kept_folder(workspace: Workspace, source: Path, data: Path) -> Path:
    """Return the folder of levels, for the same file and samples, that a later run continues."""
    if not data.is_file():
        raise UsageError(f"{data}: no such file")
    inputs = f"{__version__} {_METHODS} {digest_of(source)} {digest_of(data)}"
    folder = workspace.folder / "compress" / hashlib.sha256(inputs.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _resumed(
    path: Path, change: Callable[[Path], list[OutputLoss]]
) -> tuple[list[OutputLoss], bytes]:
    """Return a changed file and its losses; from an earlier run where that made it."""
    about = path.with_suffix(".json")
    if not about.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        losses = change(part)
        part.replace(path)
        replace_bytes(about, json.dumps(as_json(losses)).encode())
    return from_json(json.loads(about.read_text())), path.read_bytes()


def _takes_blocks(profile: Profile) -> bool:
    """True where blocks in fully connected layers save time, and zeros in convolutions do not."""
    cell = profile.verdict(Cell("FULLY_CONNECTED", "f32", "block-1x4"))
    return cell.exploits(0.3) and not profile.sparse_path.exists
