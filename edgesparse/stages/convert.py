"""From a Keras model to .tflite bytes with dense storage, and answers to hold it against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgesparse.spec.pipeline import Variant
from edgesparse.stages import quantize
from edgesparse.stages.base.keeping import save_tflite
from edgesparse.stages.base.stage import DATA_LIBRARIES, TOOLKIT_LIBRARIES, Kind, Work
from edgesparse.tflite.runtimes.compatibility import Profile, needs_one_scale


def covers(
    data: Mapping[str, Any], variant: Variant, golden: int, profiles: Iterable[Profile]
) -> dict[str, Any]:
    """What the result depends on: `data` gives calibration and `golden` samples; of the runtimes
    only whether one of them takes no scale per channel."""
    return {
        "data": data,
        "scheme": variant.quantize.scheme,
        "calibration_samples": variant.quantize.calibration_samples,
        "golden": golden,
        # Sparse int8 kernels know one scale only: said here, since a file that is stored densely
        # in the end must still be the one that was compared.
        "one_scale": variant.has_zeros or needs_one_scale(profiles, variant.quantize.numbers),
    }


def run(work: Work) -> None:
    """Leave dense.tflite, model.json and golden.npz (golden_x [n, ...], golden_y [n, ...])."""
    from edgesparse import data
    from edgesparse.tflite import convert

    spec, dataset = work.stage.spec, work.context.dataset
    model = quantize.read(work)
    representative = data.representative(dataset, spec["calibration_samples"])
    content = convert.convert(model, spec["scheme"], representative, one_scale=spec["one_scale"])
    save_tflite(content, work.folder, "dense")
    # Not from training data, which calibration has seen, nor from test data, which must stay
    # unseen.
    golden_x, _ = data.arrays(dataset.validation, spec["golden"])
    golden_y = model(golden_x, training=False).numpy()
    np.savez(work.folder / "golden.npz", golden_x=golden_x, golden_y=golden_y)


KIND = Kind("convert", 2, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
