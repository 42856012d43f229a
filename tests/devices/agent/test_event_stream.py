"""A device's output is bounded, and invalid data discards its measurements."""

import json

import numpy as np
import pytest

from edgesparse.devices.agent import event_stream
from edgesparse.devices.agent.event_stream import EventStream, ProtocolError
from edgesparse.devices.agent.events import PART_BYTES, End, Failed, Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.sample_files import save_golden, save_samples
from edgesparse.devices.transport.interface import DeviceError
from tests.devices.agent.test_events import CHECK, FAILED, HOST, ROUND


@pytest.fixture
def entry(tmp_path):
    """30 000 samples of 10 outputs each come in two parts."""
    golden, samples = tmp_path / "golden.npz", tmp_path / "samples.npz"
    save_golden(golden, np.zeros((4, 2)), np.zeros((4, 10), np.float32))
    save_samples(samples, np.zeros((30_000, 2)))
    return Entry("a", tmp_path / "a.tflite", "ai-edge-litert", "xnnpack", 1, golden, samples)


@pytest.fixture
def stream(entry):
    job = Job("job", 3, Settings(1, 0.0, 5, 0.0, 10.0), (entry,))
    return EventStream("board", 1.0, job, lambda _: None)


def say(stream, *events):
    for event in events:
        stream.feed(json.dumps(event))
    return [type(event).__name__ for event in stream.events]


def test_each_event_counts_once_and_in_its_job_only(stream):
    text = say(
        stream,
        {"event": "start", "job": "another", "host": HOST},
        {"event": "start", "job": "job", "host": HOST},
        {"event": "start", "job": "job", "host": HOST},
        CHECK,
        CHECK,
        {**ROUND, "round": 2},
        {**ROUND, "round": 2},
        {**ROUND, "round": 3},
        {**ROUND, "entry": "b"},
        {"event": "end"},
    )
    assert text == ["Start", "Check", "Round", "End"]
    assert stream.ended


def test_an_entry_fails_once_and_then_says_no_more(stream):
    """Ever new rounds took two gigabytes of memory."""
    before = stream._deadline
    for number in range(1000):
        stream.feed(json.dumps({**FAILED, "round": number}))
    say(stream, FAILED, CHECK, ROUND)
    assert [type(event) for event in stream.events] == [Failed]
    assert stream._deadline - before < 1.0


def test_only_expected_answers_count(stream):
    assert PART_BYTES < 30_000 * 10 * 4
    for part in range(1000):
        text = {"event": "answers", "entry": "a", "output": 0, "part": part, "data": "AAAA"}
        stream.feed(json.dumps(text))
        stream.feed(json.dumps({**text, "output": 1}))
    assert [event.part for event in stream.events] == [0, 1]


def test_nothing_new_renews_no_deadline(stream, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream.start_connection()
    say(stream, CHECK)
    for _ in range(20):
        clock[0] += 3.4
        stream.check_deadline()
        say(stream, CHECK, {**ROUND, "entry": "b"}, {"event": "new"})
    clock[0] += 3.4
    with pytest.raises(DeviceError, match=r"no output from the agent for 70 s; last output: \{"):
        stream.check_deadline()


def test_waiting_has_an_end(stream, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream.start_connection()
    for _ in range(59):
        say(stream, {"event": "waiting"})
        clock[0] += 60.0
        stream.check_deadline()
    clock[0] += 120.0
    with pytest.raises(DeviceError, match="is locked by another job since 60 min; stop it"):
        stream.check_deadline()


def test_a_turn_that_comes_ends_the_waiting(stream, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    say(stream, {"event": "waiting"})
    clock[0] += 3000.0
    say(stream, {"event": "start", "job": "job", "host": HOST})
    clock[0] += 69.0
    stream.check_deadline()
    clock[0] += 2.0
    with pytest.raises(DeviceError, match="no output from the agent"):
        stream.check_deadline()


def test_endless_output_is_an_error(stream, monkeypatch):
    monkeypatch.setattr(event_stream, "MAX_JUNK_BYTES", 1000)
    room = 1000 + 2 * 2 * PART_BYTES
    for _ in range(room // 1600):
        stream.feed("nonsense" * 200)
    with pytest.raises(DeviceError, match="MB of unexpected output; last line: nonsense"):
        stream.feed("nonsense" * 200)
    stream.start_connection()
    stream.feed("nonsense")


def test_invalid_data_ends_the_job(stream):
    say(stream, CHECK, ROUND)
    with pytest.raises(
        ProtocolError, match=r"device board: invalid data from the agent \(round\.latency_ns"
    ):
        say(stream, {**ROUND, "round": 1, "latency_ns": [0]})


@pytest.mark.parametrize(
    "change", [{"agreement": None}, {"samples": None}, {"samples": 0}, {"samples": 29_999}]
)
def test_an_incomplete_check_is_a_protocol_error(stream, change):
    with pytest.raises(ProtocolError, match=r"no agreement with|expected 30000"):
        say(stream, {**CHECK, **change})


def test_the_end_of_a_job_that_was_not_done_is_no_result(stream):
    say(stream, {"event": "end"})
    assert [type(event) for event in stream.events] == [End]
    assert not [event for event in stream.events if isinstance(event, Round)]
