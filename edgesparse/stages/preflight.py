"""What can be said of a model before it is trained: whether it fits the data, and what will not be
done to it.

Made in seconds, so that nobody learns it after an hour of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesparse.spec.errors import EdgesparseError
from edgesparse.stages.base.keeping import flat, read_json, write_json
from edgesparse.stages.base.stage import DATA_LIBRARIES, TOOLKIT_LIBRARIES, Kind, Work

FACTS = "facts.json"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of a model is looked into beforehand, since variants ask for it."""

    aware: bool = False
    channels: bool = False
    int8: bool = False


@dataclasses.dataclass(frozen=True)
class KernelInfo:
    """A weight that can be made sparse; `reason` is why it is not, unless it is named."""

    name: str
    layer: str
    size: int
    reason: str

    @property
    def names(self) -> tuple[str, str]:
        """What globs may match."""
        return self.name, self.layer


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a model before it is trained.

    `wrong` is why nothing can be made of it. `unaware` are the layers that quantization-aware
    training leaves out, `rigid` why no layer can lose channels, and `no_int8` why it does not
    become int8; each None where it was not asked. `widths` are the layers that have channels.
    """

    kernels: tuple[KernelInfo, ...] = ()
    notes: tuple[str, ...] = ()
    wrong: str | None = None
    unaware: tuple[str, ...] = ()
    no_aware: str | None = None
    rigid: str | None = None
    widths: tuple[str, ...] = ()
    no_int8: str | None = None


def covers(model: Mapping[str, Any], data: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """What the result depends on: `model` and `data` are their sources and digests."""
    return {"model": model, "data": data, "asked": dataclasses.asdict(asked)}


def run(work: Work) -> None:
    """Leave facts.json."""
    asked = Asked(**work.stage.spec["asked"])
    try:
        facts = _looked_into(work, asked)
    except EdgesparseError as error:
        facts = Facts(wrong=str(error))
    write_json(work.folder / FACTS, dataclasses.asdict(facts))


def _looked_into(work: Work, asked: Asked) -> Facts:
    from edgesparse import data, models
    from edgesparse.sparsity import training
    from edgesparse.sparsity.network import kernels
    from edgesparse.tflite import convert

    source, dataset = work.pipeline.model, work.context.dataset
    model, notes = models.build_noted(source, work.context.loaded.folder)
    model = flat(model, work)
    training.check_fit(model, dataset)
    found = tuple(
        KernelInfo(k.name, k.layer, k.size, k.reason) for k in kernels.kernels(model).values()
    )
    facts = Facts(found, notes)
    if asked.aware:
        from edgesparse.sparsity import quantize_aware

        left, reason = quantize_aware.foreseen(model)
        facts = dataclasses.replace(facts, unaware=left, no_aware=reason)
    if asked.channels:
        from edgesparse.sparsity import channels

        widths, reason = channels.foreseen(model)
        facts = dataclasses.replace(facts, widths=widths, rigid=reason)
    if asked.int8:
        samples = data.representative(dataset, 2)
        try:
            convert.convert(model, "int8", samples)
        except EdgesparseError as error:
            facts = dataclasses.replace(facts, no_int8=str(error))
    return facts


def read_facts(folder: Path) -> Facts:
    """What `run` left."""
    known = read_json(folder / FACTS)
    known["kernels"] = tuple(KernelInfo(**one) for one in known["kernels"])
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Facts(**{**known, **lists})


KIND = Kind("preflight", 1, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
