"""Measures what the delegate gains on emulated boards, whose clock counts instructions.

    python -m tests.tools.delegate_emulated --device pi5-emulated --device pi4-emulated

Prints one line per network, share of zeros, board and runtime: instruction time of the dense file
with XNNPACK and of the sparse one with the delegate, and their ratio. Ends with 1 where a ratio is
below its limit. Instructions are not cycles: see edgesparse/docs/pages/explanation/measurement.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from edgesparse import Project
from edgesparse.measure.results import Results
from tests.conftest import ROOT
from tests.tools.int8_model import Zeros
from tests.tools.sparse_networks import NETWORKS

LEAST = {
    ("mobilenet_v1", "pi5-emulated"): (2.6, 3.2),
    ("mobilenet_v1", "pi4-emulated"): (3.2, 4.0),
    ("mobilenet_v2", "pi5-emulated"): (2.0, 2.2),
    ("mobilenet_v2", "pi4-emulated"): (2.3, 2.6),
}
"""Ratios at 80 and 90 % zeros in blocks of 2x4, with ai-edge-litert: Cortex-A76 and Cortex-A72."""
SHARES = (0.8, 0.9)


def measure(networks: list[str], devices: list[str], folder: Path) -> Results:
    """Measure each network dense and sparse, with both delegates."""
    paths = []
    for network in networks:
        for share in (0.0, *SHARES):
            path = folder / f"{network}-{round(share * 100)}.tflite"
            path.write_bytes(NETWORKS[network](Zeros(share)))
            paths.append(path)
    with Project(ROOT) as project:
        return project.bench(paths, devices, delegates=("xnnpack", "edgesparse"), quick=True)


def compare(results: Results, networks: list[str]) -> bool:
    """Print the ratios; whether all limits are kept."""
    # A file that is measured with several delegates has the delegate's name behind its own.
    latency = {
        (r.device, r.runtime.name, r.variant.split()[0], r.delegate): r.latency_ms.mean
        for r in results.rows
        if r.latency_ms is not None
    }
    kept = True
    for row in results.rows:
        if row.status == "failed":
            print(f"{row.device} {row.runtime.name} {row.variant} {row.delegate}: {row.error}")
            kept = False
    for device, runtime in sorted({key[:2] for key in latency}):
        for network in networks:
            dense = latency.get((device, runtime, f"{network}-0", "xnnpack"))
            for number, share in enumerate(SHARES):
                variant = f"{network}-{round(share * 100)}"
                sparse = latency.get((device, runtime, variant, "edgesparse"))
                if dense is None or sparse is None:
                    continue
                least = LEAST.get((network, device)) if runtime == "ai-edge-litert" else None
                limit = f", at least {least[number]}" if least else ""
                print(
                    f"{device} {runtime} {network} {share:.0%} zeros: dense {dense:.2f} ms, "
                    f"delegate {sparse:.2f} ms, {dense / sparse:.2f}x{limit}"
                )
                kept = kept and (least is None or dense / sparse >= least[number])
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", action="append", help="default: pi5-emulated, pi4-emulated")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: all")
    arguments = parser.parse_args()
    networks = arguments.network or list(NETWORKS)
    devices = arguments.device or ["pi5-emulated", "pi4-emulated"]
    with tempfile.TemporaryDirectory() as folder:
        results = measure(networks, devices, Path(folder))
    return 0 if compare(results, networks) else 1


if __name__ == "__main__":
    sys.exit(main())
