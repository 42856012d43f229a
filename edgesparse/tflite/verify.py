"""Limits that a .tflite file must keep: its zeros, and its outputs against the Keras model's."""

from __future__ import annotations

from dataclasses import dataclass

from edgesparse.spec.pipeline import Quantize, Scheme, Verify

# Largest difference to the Keras model's outputs, as a share of their range, and the share of
# golden samples that must stay within it. Rounding: f32 sums in another order, f16 has 11 bits of
# mantissa, int8 steps of 1/256 add up over the layers. After PQAT the Keras model rounds just as
# the file does.
TOLERANCE: dict[Scheme, float] = {
    "f32": 1e-3, "f16": 2e-2, "dynamic": 0.15, "int8": 0.2, "uint8": 0.2, "int16x8": 0.05,
}  # fmt: skip
MIN_AGREEMENT: dict[Scheme, float] = {
    "f32": 1.0, "f16": 1.0, "dynamic": 0.9, "int8": 0.9, "uint8": 0.9, "int16x8": 0.9,
}  # fmt: skip
HALF_TOLERANCE = 0.05
"""Of f16 arithmetic: sums are rounded to 11 bits, too, layer after layer."""
# Weights too small for the format become more zeros, so only a loss counts. A little is allowed for
# layers that the converter merges or splits.
MIN_ZEROS_KEPT = 0.99


@dataclass(frozen=True)
class Limits:
    """See TOLERANCE and MIN_AGREEMENT."""

    tolerance: float
    min_agreement: float


def limits(quantize: Quantize, verify: Verify) -> Limits:
    """Return the pipeline's limits, or the scheme's defaults."""
    default = HALF_TOLERANCE if quantize.compute == "f16" else TOLERANCE[quantize.scheme]
    return Limits(
        default if verify.tolerance is None else verify.tolerance,
        MIN_AGREEMENT[quantize.scheme] if verify.min_agreement is None else verify.min_agreement,
    )


def lost_zeros(zeros: int, keras_zeros: int) -> str | None:
    """Describe the loss where zeros of the Keras model are missing in the file, else None."""
    if zeros >= MIN_ZEROS_KEPT * keras_zeros:
        return None
    return (
        f"conversion lost {keras_zeros - zeros:,} of {keras_zeros:,} zeros (pruning-preserving QAT "
        "is known to drift): reduce quantize.epochs, or set 'qat: false'"
    )


def disagreement(agreement: float, limit: Limits) -> str | None:
    """Describe the difference where too few outputs match the original model's, else None."""
    if agreement >= limit.min_agreement:
        return None
    return (
        f"{agreement:.0%} of golden outputs match the expected (tolerance {limit.tolerance:g} x "
        f"range); {limit.min_agreement:.0%} required"
    )
