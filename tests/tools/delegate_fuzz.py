"""Runs damaged int8 files through the delegate: whatever is in a file, the process must not crash.

    python -m tests.tools.delegate_fuzz --count 1000 --seed 0

A file is damaged where flatbuffers stay valid: sizes, scales, zero points, strides, sparse indices,
lengths of buffers. A crash in the runtime's own code, which checks few of these, does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import serialize
from tests.tools import sanitized
from tests.tools.delegate_answers import OPTIONS
from tests.tools.random_nodes import random_case

CHUNK, SECONDS, TIMED_OUT = 200, 20, 124
NUMBERS = (0, 1, 2, -1, 3, 7, 127, 128, 255, 1 << 16, (1 << 31) - 1, -(1 << 31))
SCALES = (0.0, -1.0, float("nan"), float("inf"), 1e-38, 1e38, 1.0, 255.5)


def damaged_case(seed: int) -> bytes:
    """The random case of that number with one to three damages."""
    rng = np.random.default_rng(seed + (1 << 32))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(random_case(seed).content, 0))
    for _ in range(int(rng.integers(1, 4))):
        _DAMAGES[int(rng.integers(len(_DAMAGES)))](rng, model)
    return serialize(model, aligned=True)


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _tensor(rng: np.random.Generator, model: Any) -> Any:
    return _pick(rng, model.subgraphs[0].tensors)


def _shape(rng: np.random.Generator, model: Any) -> None:
    tensor = _tensor(rng, model)
    shape = [int(size) for size in tensor.shape]
    kind = int(rng.integers(3))
    if kind == 0 and shape:
        shape[int(rng.integers(len(shape)))] = _pick(rng, (*range(-1, 70), 4096))
    elif kind == 1 and shape:
        shape.pop()
    else:
        shape.append(_pick(rng, (0, 1, 4)))
    tensor.shape = shape


def _scale(rng: np.random.Generator, model: Any) -> None:
    quantization = _tensor(rng, model).quantization
    if quantization is not None and quantization.scale is not None:
        scales = np.array(quantization.scale, np.float32)
        scales[int(rng.integers(len(scales)))] = _pick(rng, SCALES)
        quantization.scale = scales[: int(rng.integers(1, len(scales) + 1))]


def _zero_point(rng: np.random.Generator, model: Any) -> None:
    quantization = _tensor(rng, model).quantization
    if quantization is not None and quantization.zeroPoint is not None:
        points = np.array(quantization.zeroPoint, np.int64)
        points[int(rng.integers(len(points)))] = _pick(rng, NUMBERS)
        quantization.zeroPoint = points[: int(rng.integers(len(points) + 1))]


def _dimension(rng: np.random.Generator, model: Any) -> None:
    quantization = _tensor(rng, model).quantization
    if quantization is not None:
        quantization.quantizedDimension = _pick(rng, NUMBERS)


def _type(rng: np.random.Generator, model: Any) -> None:
    _tensor(rng, model).type = int(rng.integers(0, 18))


def _buffer(rng: np.random.Generator, model: Any) -> None:
    buffer = _pick(rng, model.buffers)
    if buffer.data is not None and len(buffer.data):
        kept = int(rng.integers(len(buffer.data)))
        buffer.data = np.array(buffer.data)[:kept] if rng.random() < 0.5 else None


def _options(rng: np.random.Generator, model: Any) -> None:
    options = _pick(rng, model.subgraphs[0].operators).builtinOptions
    names = [n for n, v in vars(options).items() if isinstance(v, int) and not isinstance(v, bool)]
    if names:
        name = _pick(rng, names)
        small = "adding" in name or "ctivation" in name or "ormat" in name or "Type" in name
        setattr(options, name, _pick(rng, tuple(range(-1, 9)) if small else NUMBERS))


def _wiring(rng: np.random.Generator, model: Any) -> None:
    operator = _pick(rng, model.subgraphs[0].operators)
    inputs = [int(i) for i in operator.inputs]
    if rng.random() < 0.3:
        inputs.pop()
    elif inputs:
        count = len(model.subgraphs[0].tensors)
        inputs[int(rng.integers(len(inputs)))] = int(rng.integers(-1, count))
    operator.inputs = inputs


def _sparsity(rng: np.random.Generator, model: Any) -> None:
    sparse = [t.sparsity for t in model.subgraphs[0].tensors if t.sparsity is not None]
    if not sparse:
        _shape(rng, model)
        return
    sparsity = _pick(rng, sparse)
    level = _pick(rng, sparsity.dimMetadata)
    vectors = [v for v in (level.arraySegments, level.arrayIndices) if v is not None]
    kind = int(rng.integers(5))
    if kind == 0 and vectors:
        vector = _pick(rng, vectors)
        values = np.array(vector.values)
        if values.size:
            limits = np.iinfo(values.dtype)
            values[int(rng.integers(values.size))] = _pick(rng, (limits.min, limits.max, 0, 1))
        vector.values = values[: int(rng.integers(values.size + 1))]
    elif kind == 1:
        level.denseSize = _pick(rng, (0, -1, 1, 2, 5, 1000))
    elif kind == 2:
        order = np.array(sparsity.traversalOrder)
        order[int(rng.integers(order.size))] = _pick(rng, (0, 1, 2, 3, 4, 5, -1, 100))
        sparsity.traversalOrder = order
    elif kind == 3:
        sparsity.blockMap = np.array(_pick(rng, ([0], [3], [7], [-1], [0, 3])), np.int32)
    else:
        sparsity.dimMetadata = sparsity.dimMetadata[:-1]


_DAMAGES: tuple[Callable[[np.random.Generator, Any], None], ...] = (
    _shape, _scale, _zero_point, _dimension, _type, _buffer, _options, _options, _wiring,
    _sparsity, _sparsity,
)  # fmt: skip


def _run_one(content: bytes, library: str, isa: str) -> str:
    """Load and run a file; with the delegate where `library` names one."""
    from ai_edge_litert.interpreter import Interpreter, load_delegate

    options = {**OPTIONS, **({"isa": isa} if isa else {})}
    delegates = [load_delegate(library, options)] if library else None
    try:
        interpreter = Interpreter(model_content=content, experimental_delegates=delegates)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (RuntimeError, ValueError):
        return "refused"
    return "ran"


def _child(seeds: Sequence[int], library: str, isa: str) -> None:
    for seed in seeds:
        print(f"seed {seed}", flush=True)
        try:
            content = damaged_case(seed)
        except (ValueError, TypeError, OverflowError, AttributeError, ArithmeticError):
            continue  # The damage does not fit the schema.
        print(_run_one(content, library, isa), flush=True)


def _spawn(
    seeds: Sequence[int], library: str, isa: str, environment: dict[str, str]
) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "tests.tools.delegate_fuzz", "--child", json.dumps([*seeds])]
    command += ["--isa", isa, f"--library={library}"]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(
                command,
                stdout=output,
                stderr=errors,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **environment},
                timeout=SECONDS + len(seeds),
            ).returncode
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read()


def _report(errors: str) -> str | None:
    """The sanitizer's report of a fault in the delegate; None where the runtime itself failed."""
    start = max(0, errors.find("ERROR: AddressSanitizer"), errors.find("runtime error:") - 200)
    report = errors[start : start + 2000]
    frames = [line for line in report.splitlines() if line.strip().startswith("#")]
    return report if any("delegate/src/" in frame for frame in frames[:6]) else None


def fuzz(seeds: Sequence[int], library: Path, isa: str = "") -> tuple[Counter[str], list[str]]:
    """Run damaged files with a sanitized library; returns how many ran, were refused or crashed in
    the runtime's own code, and a text for each fault of the delegate."""
    counts: Counter[str] = Counter()
    crashes = []
    left = list(seeds)
    while left:
        code, output, errors = _spawn(left[:CHUNK], str(library), isa, sanitized.environment())
        lines = output.splitlines()
        counts.update(line for line in lines if not line.startswith("seed "))
        if code == 0:
            left = left[CHUNK:]
            continue
        started = [line for line in lines if line.startswith("seed ")]
        seed = int(started[-1].split()[1]) if started else left[0]
        report = _report(errors)
        if report is None and code == TIMED_OUT and _spawn([seed], "", isa, {})[0] == 0:
            report = "does not end"
        if report is not None:
            crashes.append(f"seed {seed}: ended with {code}\n{report}")
        else:
            counts["crashes of the runtime"] += 1
        left = left[left.index(seed) + 1 :]
    return counts, crashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isa", default="")
    parser.add_argument("--library", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        _child(arguments.child, arguments.library, arguments.isa)
        return 0
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    with tempfile.TemporaryDirectory() as folder:
        counts, crashes = fuzz(seeds, sanitized.sanitized(Path(folder)), arguments.isa)
    print("\n".join(crashes))
    print(f"{len(crashes)} crashes; {dict(counts)}")
    return bool(crashes)


if __name__ == "__main__":
    sys.exit(main())
