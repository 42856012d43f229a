"""What answers are worth: the task judges them here, wherever they were given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgesparse.devices.measuring.events import Event
from edgesparse.devices.measuring.job import Entry
from edgesparse.devices.measuring.jobs import answers_of
from edgesparse.tasks import classification

LOST = "its answers to the samples did not arrive whole"


@dataclass(frozen=True)
class Judgement:
    """Accuracy over so many samples."""

    accuracy: float
    samples: int


def judged(entry: Entry, events: Iterable[Event]) -> Judgement | None:
    """What an entry's answers to its samples are worth; None where it gave none, or not all."""
    answers = answers_of(entry, events)
    if answers is None or entry.samples is None:
        return None
    with np.load(entry.samples) as samples:
        targets = samples["y"]
    return Judgement(classification.judge(answers, targets), len(targets))
