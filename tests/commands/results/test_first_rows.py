"""First rows of a run, before the other variants are trained."""

import threading
from types import SimpleNamespace

import pytest

from edgesparse.commands.results import record as records
from edgesparse.commands.results.first_rows import (
    announce_first,
    announce_ready,
    untrained_part,
)
from edgesparse.commands.results.record import RunRecord
from edgesparse.devices.transport.interface import ConnectionLost
from edgesparse.graph import events
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.results import Results
from edgesparse.measure.rows import ModelFile, Row, RuntimeInfo
from edgesparse.spec.reading.load import parse_pipeline
from tests.graph.test_plan import TEXT, plan

INITIAL = Results(
    run="r", started="", host={}, versions={}, pipeline="p", pipeline_digest="", baseline="a"
)


class Stored:
    """A store that has these keys."""

    def __init__(self, keys=()):
        self.keys = set(keys)

    def has(self, key):
        return key in self.keys


def part(text=TEXT, keys=()):
    whole = plan(text)
    return whole, untrained_part(whole, parse_pipeline(text, "x.yaml").spec, Stored(keys))


def test_dense_variants_come_first_with_all_that_they_need():
    whole, first = part()
    assert set(first.converted) == {"dense-f32", "dense-int8", "half-f16"}
    assert {stage.name for stage in first.stages} == {"samples", "train", "convert", "verify"}
    keys = {stage.key for stage in first.stages}
    assert {key for stage in first.stages for key in stage.inputs.values()} <= keys
    assert keys < {stage.key for stage in whole.stages}


def test_where_nothing_long_is_left_to_train_there_are_no_first_rows():
    whole, _ = part()
    trained = [s.key for s in whole.stages if s.name in ("sparsify", "quantize")]
    assert part(keys=trained)[1] is None
    head = TEXT[: TEXT.index("  # Fewer channels")]
    assert part(head + "baseline: dense-f32\n")[1] is None


def test_a_variant_is_announced_once_when_its_last_file_is_verified():
    whole = plan()
    announced = []

    class Record:
        class initial:  # noqa: N801
            pipeline, baseline = "digits", "dense-f32"

            @staticmethod
            def model_copy(update):
                return update["rows"]

    class Target:
        class device:  # noqa: N801
            name = "pi"

    def candidates_of(part, errors):
        (variant,) = part.converted
        file = ModelFile(
            sha256="", bytes=9, bytes_gzip=9, parameters=9, zeros=0, sparsity=0, storage="dense"
        )
        return [Candidate(variant, RuntimeInfo(name="r", version="1"), "", 1, model=file)]

    check = announce_ready(whole, Record, Target, Stored(), announced.append, candidates_of)
    for stage in [*whole.stages, *whole.stages]:
        check(stage)
    assert all(isinstance(event, events.RowsReady) for event in announced)
    assert sorted(row.variant for event in announced for row in event.results) == sorted(
        whole.converted
    )


@pytest.mark.parametrize("error", [ConnectionLost("pi: lost"), ValueError("not finite")])
def test_a_failed_first_measurement_ends_its_display_and_not_the_run(monkeypatch, tmp_path, error):
    def fail(*_):
        raise error

    broken = "run_job" if isinstance(error, ConnectionLost) else "build_rows"
    monkeypatch.setattr(records, "run_job", lambda *_: [])
    monkeypatch.setattr(records, broken, fail)
    record, seen = RunRecord(INITIAL, [], [], [], []), []
    candidate = Candidate("a", RuntimeInfo(name="r", version="1"), "xnnpack", 1, path=tmp_path)
    target = SimpleNamespace(device=SimpleNamespace(name="pi"), transport=None)
    record.measure_first(target, [candidate], seen.append, threading.Event())
    assert record.first_rows.get("pi", []) == []
    assert isinstance(seen[-1], events.StageFailed | events.StageDone)
    assert record.left == ({"pi"} if isinstance(error, ConnectionLost) else set())


def test_first_rows_are_announced_for_their_device_only():
    def row(device):
        runtime = RuntimeInfo(name="r", version="1")
        return Row(pipeline="p", device=device, runtime=runtime, delegate="xnnpack", threads=1,
                   clock="wall", variant="a", status="ok")  # fmt: skip

    record, seen = RunRecord(INITIAL, [], [], [], ["an earlier note"]), []
    record.first_rows = {"pi": [row("pi")], "coral": [row("coral")], "lost": []}
    announce_first(record, "coral", seen.append)
    announce_first(record, "lost", seen.append)
    (event,) = seen
    assert [r.device for r in event.results.rows] == ["coral"]
    assert event.results.notes == [f"coral: {records.PROVISIONAL}"]
