"""What is heard of a device is bounded, and one that lies is not believed."""

import json

import numpy as np
import pytest

from edgesparse.devices.agent import event_stream
from edgesparse.devices.agent.event_stream import Heard, Lied
from edgesparse.devices.agent.events import PART_BYTES, End, Failed, Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.samples import save_golden, save_samples
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
def heard(entry):
    job = Job("job", 3, Settings(1, 0.0, 5, 0.0, 10.0), (entry,))
    return Heard("board", 1.0, job, lambda _: None)


def say(heard, *events):
    for event in events:
        heard.hear(json.dumps(event))
    return [type(event).__name__ for event in heard.events]


def test_each_event_counts_once_and_in_its_job_only(heard):
    said = say(
        heard,
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
    assert said == ["Start", "Check", "Round", "End"]
    assert heard.ended


def test_an_entry_fails_once_and_then_says_no_more(heard):
    """Ever new rounds took two gigabytes of memory."""
    before = heard._deadline
    for number in range(1000):
        heard.hear(json.dumps({**FAILED, "round": number}))
    say(heard, FAILED, CHECK, ROUND)
    assert [type(event) for event in heard.events] == [Failed]
    assert heard._deadline - before < 1.0


def test_only_as_many_answers_as_were_asked_for(heard):
    assert PART_BYTES < 30_000 * 10 * 4
    for part in range(1000):
        said = {"event": "answers", "entry": "a", "output": 0, "part": part, "data": "AAAA"}
        heard.hear(json.dumps(said))
        heard.hear(json.dumps({**said, "output": 1}))
    assert [event.part for event in heard.events] == [0, 1]


def test_nothing_new_renews_no_deadline(heard, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    heard.begin()
    say(heard, CHECK)
    for _ in range(20):
        clock[0] += 3.4
        heard.require_time()
        say(heard, CHECK, {**ROUND, "entry": "b"}, {"event": "new"})
    clock[0] += 3.4
    with pytest.raises(DeviceError, match=r"nothing heard from the agent for 70 s; it said: \{"):
        heard.require_time()


def test_waiting_has_an_end(heard, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    heard.begin()
    for _ in range(59):
        say(heard, {"event": "waiting"})
        clock[0] += 60.0
        heard.require_time()
    clock[0] += 120.0
    with pytest.raises(DeviceError, match="another job has held it for 60 minutes"):
        heard.require_time()


def test_a_turn_that_comes_ends_the_waiting(heard, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    say(heard, {"event": "waiting"})
    clock[0] += 3000.0
    say(heard, {"event": "start", "job": "job", "host": HOST})
    clock[0] += 69.0
    heard.require_time()
    clock[0] += 2.0
    with pytest.raises(DeviceError, match="nothing heard"):
        heard.require_time()


def test_endless_print_is_given_up(heard, monkeypatch):
    monkeypatch.setattr(event_stream, "MAX_JUNK_BYTES", 1000)
    room = 1000 + 2 * 2 * PART_BYTES
    for _ in range(room // 1600):
        heard.hear("nonsense" * 200)
    with pytest.raises(DeviceError, match="prints without end; it said: nonsense"):
        heard.hear("nonsense" * 200)
    heard.begin()
    heard.hear("nonsense")


def test_a_lie_ends_the_job(heard):
    say(heard, CHECK, ROUND)
    with pytest.raises(
        Lied, match=r"device board: its agent says what cannot be: round\.latency_ns"
    ):
        say(heard, {**ROUND, "round": 1, "latency_ns": [0]})


@pytest.mark.parametrize(
    "change", [{"agreement": None}, {"samples": None}, {"samples": 0}, {"samples": 29_999}]
)
def test_a_check_of_less_than_was_asked_is_a_lie(heard, change):
    with pytest.raises(Lied, match=r"checked against nothing|30000 samples were"):
        say(heard, {**CHECK, **change})


def test_the_end_of_a_job_that_was_not_done_is_no_result(heard):
    say(heard, {"event": "end"})
    assert [type(event) for event in heard.events] == [End]
    assert not [event for event in heard.events if isinstance(event, Round)]
