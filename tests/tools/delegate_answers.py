"""Compares the delegate's answers with XNNPACK's, bit for bit, on random nodes and chains.

    python -m tests.tools.delegate_answers --isa avx2 --count 1000 --seed 0

Prints the first case that differs with its parameters; `--keep FOLDER` writes its file there. A
crash is a difference, too: cases run in child processes, a few hundred in each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.tools.random_nodes import Case, random_case

CHUNK = 250
OPTIONS = {"min_zeros": "0", "dense": "always"}
"""All nodes are taken, those without zeros, too."""
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass
class Outcome:
    """The result of comparing: `taken` and `left` count weighted operators by name, `alone` cases
    with an operator that XNNPACK refuses, whose answers are the runtime's own kernels'."""

    cases: int = 0
    alone: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    difference: str | None = None

    def add(self, other: dict[str, Any]) -> None:
        """Take in the lines of a child."""
        self.cases += 1
        self.alone += other["alone"]
        self.taken.update(other["taken"])
        self.left.update(other["left"])
        self.difference = other["difference"]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{name} {self.taken[name]} of {self.taken[name] + self.left[name]}"
            for name in sorted({*self.taken, *self.left})
        )
        return f"{self.cases} cases equal ({self.alone} without XNNPACK's answer); taken: {counts}"


def library_here() -> Path:
    """The delegate's library for this machine, built where it is missing."""
    from edgesparse.delegate.build import library

    return library(platform.machine())


def answers(interpreter: Any, case: Case) -> list[np.ndarray[Any, Any]]:
    """All outputs for each input in turn; for the first twice: no run depends on another."""
    outputs = []
    for values in (*case.inputs, case.inputs[0]):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
        interpreter.invoke()
        outputs += [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]
    return outputs


def delegated(interpreter: Any) -> tuple[Counter[str], Counter[str]]:
    """Operators with weights by name: those that lie in a delegate, and the others."""
    details = interpreter._get_ops_details()
    inside = {i for d in details if d["op_name"].upper().endswith("DELEGATE") for i in d["inputs"]}
    decoded = {d["outputs"][0]: d["inputs"][0] for d in details if d["op_name"] == "DENSIFY"}
    taken: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for operator in details:
        if operator["op_name"] in WEIGHTED:
            weights = operator["inputs"][1]
            here = weights in inside or decoded.get(weights) in inside
            (taken if here else left)[operator["op_name"]] += 1
    return taken, left


def compare(case: Case, library: Path, options: dict[str, str], threads: int) -> dict[str, Any]:
    """Compare one case: what the delegate took, and the first difference to XNNPACK.

    Single nodes are compared with the reference kernels as well, whose fixed-point scales round
    otherwise in places: answers may be apart by 1.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate

    def opened(**more: Any) -> Any:
        interpreter = Interpreter(model_content=case.content, **more)
        interpreter.allocate_tensors()
        return interpreter

    plain = opened(num_threads=1)
    delegate = load_delegate(str(library), options)
    ours = opened(num_threads=threads, experimental_delegates=[delegate])
    taken, left = delegated(ours)
    # What XNNPACK refuses is computed by the runtime's own kernels.
    alone = bool(delegated(plain)[1])
    outputs = answers(ours, case)
    single = case.kind not in ("chain", "residual")
    difference = None if alone else first_difference("XNNPACK", answers(plain, case), outputs, 0)
    if single and difference is None:
        reference = opened(experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        difference = first_difference("reference", answers(reference, case), outputs, 1)
    return {"alone": alone, "taken": taken, "left": left, "difference": difference}


def first_difference(
    name: str,
    expected: Sequence[np.ndarray[Any, Any]],
    outputs: Sequence[np.ndarray[Any, Any]],
    tolerance: int,
) -> str | None:
    """Describe the first output that is further apart than `tolerance`."""
    for number, (a, b) in enumerate(zip(expected, outputs, strict=True)):
        apart = np.abs(a.astype(int) - b.astype(int))
        if apart.max(initial=0) > tolerance:
            index = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
            return (
                f"answer {number}: {np.count_nonzero(apart)} of {apart.size} differ, at most by "
                f"{apart.max()}, first at {index}: {name} {a[index]}, delegate {b[index]}"
            )
    return None


def run(
    seeds: Sequence[int],
    isa: str,
    library: Path,
    *,
    threads: int = 1,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Compare cases in child processes, up to the first difference."""
    outcome = Outcome()
    for start in range(0, len(seeds), CHUNK):
        chunk = seeds[start : start + CHUNK]
        command = [sys.executable, "-m", "tests.tools.delegate_answers", "--child", str(library)]
        command += ["--isa", isa, "--threads", str(threads)]
        done = subprocess.run(
            [*command, "--seeds", json.dumps(list(chunk))],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **(environment or {})},
        )
        printed = list(_lines(done.stdout))
        for _, result in printed:
            if result is not None:
                outcome.add(result)
        if outcome.difference is None and done.returncode:
            reason = f"{done.stderr[:2500]} ... {done.stderr[-500:]}"
            outcome.difference = f"the process ended with {done.returncode}: {reason}"
        if outcome.difference is not None:
            seed = printed[-1][0] if printed else chunk[0]
            outcome.difference = f"seed {seed}: {random_case(seed)}\n  {outcome.difference}"
            break
    return outcome


def _lines(text: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Seeds as they begin, and what came out of them."""
    seed = 0
    for line in text.splitlines():
        if line.startswith("seed "):
            seed = int(line.split()[1])
            yield seed, None
        elif line.startswith("{"):
            yield seed, json.loads(line)


def _child(library: Path, seeds: Sequence[int], options: dict[str, str], threads: int) -> None:
    for seed in seeds:
        print(f"seed {seed}", flush=True)
        result = compare(random_case(seed), library, options, threads)
        print(json.dumps(result), flush=True)
        if result["difference"]:
            break


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", default="", help="the instruction set; default: what the CPU has")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--library", type=Path, help="default: the one of this machine, built")
    parser.add_argument("--keep", type=Path, help="folder for the file of a case that differs")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {**OPTIONS, **({"isa": arguments.isa} if arguments.isa else {})}
    if arguments.child:
        _child(arguments.child, arguments.seeds, options, arguments.threads)
        return 0
    if arguments.library is None:
        arguments.library = library_here()
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    outcome = run(seeds, arguments.isa, arguments.library, threads=arguments.threads)
    if outcome.difference is None:
        print(outcome)
        return 0
    print(f"{outcome.cases - 1} cases were equal, then {outcome.difference}")
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        seed = int(outcome.difference.split(":")[0].split()[1])
        (arguments.keep / f"{seed}.tflite").write_bytes(random_case(seed).content)
    return 1


if __name__ == "__main__":
    sys.exit(main())
