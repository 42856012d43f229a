"""Measures the constants of the delegate's cost model, and how well it predicts.

    python -m tests.tools.delegate_cost                        # this CPU, its own instruction set
    python -m tests.tools.delegate_cost --isa avx2             # with those kernels
    python -m tests.tools.delegate_cost --device pi5-emulated  # a device of this project

Layers and small chains are timed dense in XNNPACK and with zeros in the delegate; constants are
fitted to them with non-negative least squares of relative errors. Prints constants for
edgesparse/delegate/constants.py, and for each file the predicted and the measured ratio.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from edgesparse.delegate import cost
from edgesparse.delegate.constants import CPUS, Cpu
from edgesparse.delegate.load import MODULES
from edgesparse.tflite.runtimes.delegated import Network, border_counts, claim, read_network
from tests.conftest import ROOT
from tests.tools.int8_model import Int8Model, Pair, Result, Window, Zeros
from tests.tools.sparse_networks import NETWORKS

POINTWISE = (
    (32, 8, 16), (32, 32, 32), (28, 32, 64), (16, 16, 32), (16, 64, 64), (14, 128, 256),
    (8, 32, 64), (8, 128, 128), (7, 256, 256), (4, 64, 128), (4, 256, 256), (4, 512, 512),
    (2, 256, 256),
)  # fmt: skip
WINDOWS = (
    (32, 3, 16, 3, 1), (32, 3, 32, 3, 2), (16, 16, 16, 3, 1), (16, 32, 32, 3, 1), (8, 64, 64, 3, 1),
    (16, 16, 32, 3, 2), (64, 3, 32, 3, 2),
)  # fmt: skip
DEPTHWISE = (
    (32, 16, 1), (32, 32, 2), (16, 32, 1), (16, 64, 2), (8, 64, 1), (8, 128, 2), (4, 128, 1),
    (4, 256, 1), (4, 256, 2), (2, 256, 1), (64, 32, 1), (28, 64, 1),
)  # fmt: skip
FLAT = ((64, 10), (256, 64), (512, 512), (1024, 10))
SHARES = ((0.5, (2, 4)), (0.8, (1, 4)), (0.8, (2, 4)), (0.8, (4, 4)), (0.9, (2, 4)), (0.95, (1, 4)))
BRIEF = ((0.8, (2, 4)), (0.9, (1, 4)), (0.8, (4, 4)))
BRIEF_GROUPS = (
    "pointwise-28-32-64", "pointwise-8-128-128", "pointwise-4-256-256", "window-16-32-32-3-1",
    "window-64-3-32-3-2", "block-16-32-1", "block-16-64-2", "block-8-128-2", "block-4-256-1",
    "flat-256-64", "resnet8", "ds_cnn", "mobilenet_v1@64", "mobilenet_v1@32",
)  # fmt: skip
DENSE = "dense"
NETWORK_WEIGHT = 3.0
"""How much a network counts among single layers: its layers' data lie in colder caches."""
Times = dict[tuple[str, bool], float]
"""By file and whether the delegate ran it."""

_TIME = """
import json, sys, time
from importlib import import_module
import numpy as np
runtime = import_module(sys.argv[5])
Interpreter, load_delegate = runtime.Interpreter, runtime.load_delegate
folder, library, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
jobs, best = [tuple(job) for job in json.loads(sys.argv[4])], {}
for name, ours, options in jobs:
    delegates = [load_delegate(library, options)] if ours else None
    i = Interpreter(f"{folder}/{name}.tflite", num_threads=1, experimental_delegates=delegates)
    i.allocate_tensors()
    (source,) = i.get_input_details()
    values = np.random.default_rng(0).integers(-128, 128, source["shape"]).astype(np.int8)
    i.set_tensor(source["index"], values)
    for _ in range(5):
        i.invoke()
    begun = time.process_time_ns()
    for _ in range(10):
        i.invoke()
    count = max(5, int(2e6 * 10 / max(1, time.process_time_ns() - begun)))
    taken = []
    for _ in range(rounds):
        begun = time.process_time_ns()
        for _ in range(count):
            i.invoke()
        taken.append((time.process_time_ns() - begun) / count)
    best[f"{name} {int(ours)}"] = float(np.percentile(taken, 10))
print(json.dumps(best))
"""


def brief_files() -> dict[str, bytes]:
    """Choose a tenth of all files, for a device whose clock counts instructions."""
    return {
        name: content for name, content in files(BRIEF) if name.rsplit("_", 1)[0] in BRIEF_GROUPS
    }


def files(shares: Sequence[tuple[float, Pair]] = SHARES) -> Iterator[tuple[str, bytes]]:
    """Name and write every file; the first word is its group, the last one its zeros."""
    for zeros in (None, *shares):
        name = DENSE if zeros is None else f"{zeros[0]}:{zeros[1][0]}x{zeros[1][1]}"
        made = Zeros() if zeros is None else Zeros(*zeros)
        for size, inputs, outputs in POINTWISE:
            yield f"pointwise-{size}-{inputs}-{outputs}_{name}", _chain(size, inputs, outputs, made)
        for size, inputs, outputs, kernel, stride in WINDOWS:
            content = _window(size, inputs, outputs, kernel, stride, made)
            yield f"window-{size}-{inputs}-{outputs}-{kernel}-{stride}_{name}", content
        for inputs, outputs in FLAT if zeros is None or zeros[0] >= 0.9 else ():
            yield f"flat-{inputs}-{outputs}_{name}", _flat(inputs, outputs, made)
        for size, channels, stride in DEPTHWISE:
            yield f"block-{size}-{channels}-{stride}_{name}", _block(size, channels, stride, made)
        if zeros in (None, (0.8, (2, 4)), (0.9, (2, 4)), (0.8, (1, 4))):
            for network, build in NETWORKS.items():
                yield f"{network}_{name}", build(made)
            yield f"mobilenet_v1@32_{name}", NETWORKS["mobilenet_v1"](made, size=32)
            yield f"mobilenet_v1@64_{name}", NETWORKS["mobilenet_v1"](made, size=64)
    for size, channels, stride in DEPTHWISE:
        yield f"depthwise-{size}-{channels}-{stride}_{DENSE}", _depthwise(size, channels, stride)


def _chain(size: int, inputs: int, outputs: int, zeros: Zeros) -> bytes:
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, size, size, inputs), 2 / 255, 0)
    for a, b in ((inputs, outputs), (outputs, inputs), (inputs, outputs)):
        x = m.conv(x, zeros.weights(m.rng, (b, 1, 1, a)))
    return m.finish(x)


def _window(size: int, inputs: int, outputs: int, kernel: int, stride: int, zeros: Zeros) -> bytes:
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, size, size, inputs), 2 / 255, 0)
    weights = zeros.weights(m.rng, (outputs, kernel, kernel, inputs))
    return m.finish(m.conv(x, weights, Window(stride=(stride, stride))))


def _depthwise(size: int, channels: int, stride: int) -> bytes:
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, size, size, channels), 2 / 255, 0)
    for _ in range(3 if stride == 1 else 1):
        weights = Zeros().weights(m.rng, (1, 3, 3, channels))
        x = m.depthwise(x, weights, Window(stride=(stride, stride)))
    return m.finish(x)


def _block(size: int, channels: int, stride: int, zeros: Zeros) -> bytes:
    """A depthwise convolution between two pointwise ones."""
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, size, size, channels // 2), 2 / 255, 0)
    x = m.conv(x, zeros.weights(m.rng, (channels, 1, 1, channels // 2)))
    x = m.depthwise(x, Zeros().weights(m.rng, (1, 3, 3, channels)), Window(stride=(stride, stride)))
    return m.finish(m.conv(x, zeros.weights(m.rng, (channels, 1, 1, channels))))


def _flat(inputs: int, outputs: int, zeros: Zeros) -> bytes:
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, inputs), 2 / 255, 0)
    return m.finish(m.dense(x, zeros.weights(m.rng, (outputs, inputs)), Result(0.1, 0, "NONE")))


def jobs(names: Sequence[str]) -> list[tuple[str, bool]]:
    """What is timed: dense files in XNNPACK, all in the delegate."""
    return [(name, False) for name in names if name.endswith(DENSE)] + [(n, True) for n in names]


def is_network(name: str) -> bool:
    """Whether the delegate chooses itself what it takes of a file; of others it takes all."""
    return name.startswith(tuple(NETWORKS))


def measure_here(folder: Path, names: Sequence[str], isa: str, rounds: int, runtime: str) -> Times:
    """Time files on this CPU, in nanoseconds of CPU time."""
    from tests.tools.delegate_answers import OPTIONS, library_here

    result: Times = {}
    work = [
        (n, o, {"isa": isa} if is_network(n) else {**OPTIONS, "isa": isa}) for n, o in jobs(names)
    ]
    for start in range(0, len(work), 40):
        command = [sys.executable, "-c", _TIME, str(folder), str(library_here())]
        command += [str(rounds), json.dumps(work[start : start + 40]), MODULES[runtime]]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        for key, value in json.loads(done.stdout).items():
            name, ours = key.rsplit(" ", 1)
            result[name, ours == "1"] = value
    return result


def measure_device(folder: Path, names: Sequence[str], device: str, runtime: str) -> Times:
    """Time files on a device of this project, in its clock's nanoseconds."""
    from edgesparse import Project

    measured: Times = {}
    for ours in (False, True):
        chosen = [name for name in names if name.endswith(DENSE) != ours]
        paths = [folder / f"{name}.tflite" for name in chosen]
        delegates = ("edgesparse" if ours else "xnnpack",)
        with Project(ROOT) as project:
            results = project.bench(paths, device, delegates=delegates, quick=True)
        for row in results.rows:
            if row.latency_ms is not None and row.runtime.name == runtime:
                measured[row.variant, ours] = row.latency_ms.p50 * 1e6
    return measured


def counts_of(network: Network, cpu: Cpu, ours: bool) -> dict[str, float]:
    """All counts of a network, prefixed where they are XNNPACK's."""
    total: dict[str, float] = {("D:call" if ours else "X:call"): 1.0}
    for node in network.nodes:
        if node.layer is None or node.op == "DENSIFY":
            continue
        taken = ours and node.taken
        counts = (cost.delegate_counts if taken else cost.dense_counts)(node.layer, cpu)
        for name, n in counts.items():
            key = ("D:" if taken else "X:") + name
            total[key] = total.get(key, 0.0) + n
    for counts in border_counts(network) if ours else []:
        for name, n in counts.items():
            total["D:" + name] = total.get("D:" + name, 0.0) + n
    return total


def _emphasis(name: str) -> float:
    return NETWORK_WEIGHT if is_network(name) else 1.0


def fit(rows: Sequence[tuple[Mapping[str, float], float, float]]) -> tuple[dict[str, float], float]:
    """Fit constants to counts, times and how much they count; with the root mean square of
    relative errors."""
    names = sorted({name for counts, _, _ in rows for name in counts})
    matrix = np.array([[counts.get(name, 0.0) / t for name in names] for counts, t, _ in rows])
    emphasis = np.array([weight for _, _, weight in rows])
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    matrix /= scale
    weights = np.sqrt(emphasis)
    for _ in range(10):  # Timings that something disturbed count less (Huber 1964).
        solution, _ = nnls(matrix * weights[:, None], weights)
        error = matrix @ solution - 1
        weights = np.sqrt(emphasis * np.minimum(1, 0.1 / np.maximum(np.abs(error), 1e-9)))
    return dict(zip(names, solution / scale, strict=True)), float(np.sqrt(np.mean(error**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", choices=CPUS, default="avx512vnni")
    parser.add_argument("--device", help="a device of this project or its file")
    parser.add_argument("--runtime", default="ai-edge-litert")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=Path, help="read times from here if it exists, else write")
    arguments = parser.parse_args()
    cpu = CPUS[arguments.isa]
    contents = brief_files() if arguments.device else dict(files())
    if arguments.times and arguments.times.exists():
        stored = json.loads(arguments.times.read_text())
        measured: Times = {(name, ours): t for name, ours, t in stored}
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                Path(folder, f"{name}.tflite").write_bytes(content)
            if arguments.device:
                measured = measure_device(
                    Path(folder), list(contents), arguments.device, arguments.runtime
                )
            else:
                measured = measure_here(
                    Path(folder),
                    list(contents),
                    arguments.isa,
                    arguments.rounds,
                    arguments.runtime,
                )
        if arguments.times:
            arguments.times.write_text(json.dumps([[*key, t] for key, t in measured.items()]))
    show(cpu, contents, measured, all_taken=not arguments.device)


def show(cpu: Cpu, contents: Mapping[str, bytes], measured: Times, *, all_taken: bool) -> None:
    """Fit the constants, print them, and compare ratios of networks."""
    plain = {n: read_network(c) for n, c in contents.items()}
    claimed = {
        name: claim(network, cpu, min_zeros=0.0 if all_taken and not is_network(name) else None)
        for name, network in plain.items()
    }
    xnnpack = [
        (counts_of(plain[n], cpu, False), t, _emphasis(n))
        for (n, ours), t in measured.items()
        if not ours
    ]
    dense, error = fit(xnnpack)
    print(f"# XNNPACK, {error:.1%} off (root mean square), over {len(xnnpack)} files")
    rows = []
    for (name, ours), t in measured.items():
        if ours:
            counts = counts_of(claimed[name], cpu, True)
            outside = _predicted(counts, dense)
            if outside < 0.8 * t:
                inside = {key: n for key, n in counts.items() if key[0] == "D"}
                rows.append((inside, t - outside, _emphasis(name)))
    own, own_error = fit(rows)
    for title, constants in (("dense", dense), ("delegate", own)):
        values = {key[2:]: float(f"{value:.4g}") for key, value in constants.items() if value}
        print(f"{title} = {json.dumps(values)}")
    print(f"# delegate, {own_error:.1%} off, over {len(rows)} files")
    for name in contents:
        before = measured.get((name.rsplit("_", 1)[0] + "_dense", False))
        after = measured.get((name, True))
        if before is None or after is None or name.endswith(DENSE):
            continue
        first = _predicted(counts_of(plain[name], cpu, False), dense)
        second = _predicted(counts_of(claimed[name], cpu, True), {**dense, **own})
        ratio, predicted = before / after, first / second
        print(
            f"{name:40} {before / 1000:8.1f} -> {after / 1000:8.1f} us, measured {ratio:.2f}x, "
            f"predicted {predicted:.2f}x ({predicted / ratio - 1:+.0%}), "
            f"dense {first / before - 1:+.0%}, delegate {second / after - 1:+.0%}"
        )


def _predicted(counts: Mapping[str, float], constants: Mapping[str, float]) -> float:
    return sum(constants.get(name, 0.0) * n for name, n in counts.items())


if __name__ == "__main__":
    main()
