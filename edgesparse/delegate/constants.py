"""Constants of the cost model for each instruction set, and where they were measured.

They are printed by `python -m tests.tools.delegate_cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cpu:
    """Kernels of an instruction set, and what they cost.

    Attributes:
        name: its key in CPUS.
        vector: pixels that a register holds.
        block_cost: cycles of a block by its rows, by which the delegate chooses (src/*.cc).
        dense_tile: pixels and outputs of a tile of XNNPACK's products.
        dense: constants of XNNPACK's counts, see cost.dense_counts; and of each call.
        builtin: the same of tflite-runtime, whose int8 runs on TFLite's own kernels.
        delegate: constants of the delegate's counts, see cost.delegate_counts; and of each call.
        source: where they were measured.
        amx: the runtime's dense products use matrix tiles.
    """

    name: str
    vector: int
    block_cost: Mapping[int, float]
    dense_tile: tuple[int, int]
    dense: Mapping[str, float]
    builtin: Mapping[str, float]
    delegate: Mapping[str, float]
    source: str
    amx: bool = False

    def slower(self, factor: float) -> Cpu:
        """Return constants with which the delegate takes `factor` times as long."""
        return replace(self, delegate={k: v * factor for k, v in self.delegate.items()})

    def dense_in(self, runtime: str) -> Mapping[str, float]:
        """Return the constants of a runtime's dense int8 kernels."""
        return self.builtin if runtime == "tflite-runtime" else self.dense


def _scaled(constants: Mapping[str, float], **factors: float) -> dict[str, float]:
    return {name: value * factors.get(name, 1.0) for name, value in constants.items()}


_EPYC = "AMD EPYC with AVX-512 VNNI, one thread, CPU time in ns, ai-edge-litert"
_AVX512VNNI = Cpu(
    name="avx512vnni",
    vector=16,
    block_cost={1: 1.25, 2: 2.1, 4: 4.0},
    dense_tile=(7, 16),
    dense={
        "call": 519.3,
        "product": 0.004141,
        "output": 0.1538,
        "window": 0.3009,
        "weight": 0.005431,
        "depthwise": 0.5115,
        "element": 0.09546,
        "reduced": 0.09546,
    },
    builtin={
        "call": 928.8,
        "product": 0.01979,
        "output": 0.4161,
        "window": 0.763,
        "weight": 0.07734,
        "depthwise": 19.55,
        "element": 8.987,
        "reduced": 0.6,
    },
    delegate={
        "call": 724.9,
        "block1": 0.4238,
        "block2": 0.5233,
        "block4": 1.002,
        "result": 0.9588,
        "weight": 0.01215,
        "spread": 0.1204,
        "compact": 0.02059,
        "tap": 0.9273,
        "strided": 1.184,
        "row": 3.296,
        "group": 1.296,
        "border": 0.01595,
        "element": 0.02431,
    },
    source=_EPYC,
)
# The kernels for AVX2 were measured on the same CPU. Of XNNPACK's, published and measured rates of
# dense int8 products are 35 with AVX2, 60-115 with AVX-VNNI, 135-175 with AVX-512 VNNI and 400-790
# GMAC/s with AMX.
_AVX2 = Cpu(
    name="avx2",
    vector=8,
    block_cost={1: 1.4, 2: 2.2, 4: 4.0},
    dense_tile=(3, 8),
    dense=_scaled(_AVX512VNNI.dense, product=4.4, output=2.0, depthwise=1.6),
    builtin=_scaled(_AVX512VNNI.builtin, product=1.5),
    delegate={
        "call": 679.2,
        "block1": 0.3966,
        "block2": 0.8204,
        "block4": 1.428,
        "result": 0.8316,
        "weight": 0.03663,
        "spread": 0.2615,
        "compact": 0.03413,
        "tap": 1.276,
        "strided": 0.1948,
        "row": 1.812,
        "group": 27.71,
        "border": 0.04524,
        "element": 0.05,
    },
    source=f"{_EPYC}; XNNPACK's products scaled by their rate with AVX2",
)
_AVXVNNI = replace(
    _AVX2,
    name="avxvnni",
    dense_tile=(5, 8),
    dense=_scaled(_AVX512VNNI.dense, product=1.8, output=2.0, depthwise=1.6),
    delegate={**_AVX2.delegate, "block1": 0.36, "block2": 0.55, "block4": 1.0, "spread": 0.15},
    source=f"{_EPYC}; scaled by the rates of products with AVX-VNNI",
)
_AMX = replace(
    _AVX512VNNI,
    name="amx",
    dense=_scaled(_AVX512VNNI.dense, product=0.45),
    source=f"{_EPYC}; XNNPACK's products scaled by their rate with AMX",
    amx=True,
)
# Cycles by a model: executed instructions times their throughput, without caches.
_DOTPROD = Cpu(
    name="dotprod",
    vector=4,
    block_cost={1: 1.15, 2: 2.0, 4: 3.8},
    dense_tile=(4, 16),
    dense={
        "call": 2000.0,
        "product": 0.034,
        "output": 0.5,
        "window": 1.0,
        "weight": 0.02,
        "depthwise": 2.9,
        "element": 0.5,
        "reduced": 0.5,
    },
    builtin={
        "call": 3000.0,
        "product": 0.077,
        "output": 3.1,
        "window": 3.1,
        "weight": 0.06,
        "depthwise": 15.5,
        "element": 3.6,
        "reduced": 1.0,
    },
    delegate={
        "call": 2500.0,
        "block1": 0.72,
        "block2": 1.2,
        "block4": 2.3,
        "result": 2.3,
        "weight": 0.02,
        "spread": 0.3,
        "compact": 0.2,
        "tap": 2.27,
        "strided": 0.5,
        "border": 0.4,
        "element": 0.4,
    },
    source="Cortex-A76, cycles by a model, adjusted by hand",
)
_NEON = replace(
    _DOTPROD,
    name="neon",
    vector=8,
    block_cost={1: 1.1, 2: 2.0, 4: 4.1},
    # Of 8 outputs on most cores, of 16 on others.
    dense_tile=(4, 8),
    dense=_scaled(_DOTPROD.dense, product=4.4, output=1.6, depthwise=1.1),
    builtin=_scaled(_DOTPROD.builtin, product=2.0, output=0.7, window=0.7, depthwise=0.7),
    delegate={
        **_DOTPROD.delegate,
        "block1": 5.2,
        "block2": 9.5,
        "block4": 19.5,
        "result": 13.0,
        "tap": 9.0,
        "strided": 2.0,
    },
    source="Cortex-A72, cycles by a model, adjusted by hand to instructions of MobileNetV1",
)
CPUS: dict[str, Cpu] = {
    cpu.name: cpu for cpu in (_AVX512VNNI, _AVXVNNI, _AVX2, _AMX, _DOTPROD, _NEON)
}
