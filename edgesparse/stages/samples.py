"""Test samples, on the side of the benchmark: what devices are asked to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.stages.base.keeping import write_json
from edgesparse.stages.base.stage import DATA_LIBRARIES, Kind, Work


def covers(data: Mapping[str, Any], count: int) -> dict[str, Any]:
    """What the result depends on: `data` is its source and digest."""
    return {"data": data, "count": count}


def run(work: Work) -> None:
    """Leave samples.npz (x [n, ...], y [n]) and labels.json."""
    from edgesparse import data

    count, dataset = work.stage.spec["count"], work.context.dataset
    x, y = data.arrays(dataset.test, max(1, count))
    np.savez(work.folder / "samples.npz", x=x[:count], y=y[:count])
    write_json(work.folder / "labels.json", list(dataset.class_names))


KIND = Kind("samples", 1, (*DATA_LIBRARIES, "tensorflow"), run)
