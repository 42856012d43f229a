import json

import pytest

from edgesparse.devices.agent import events
from edgesparse.devices.agent.events import (
    MAX_LINE,
    Failed,
    HostInfo,
    InvalidEventError,
    Waiting,
    parse_event,
)
from edgesparse.devices.ondevice import agent

CPU = {"mhz": 1800.0, "temperature_c": 40.0, "throttled": False}
ROUND = {
    "event": "round", "entry": "a", "round": 0, "latency_ns": [5], "init_ms": 1, "first_ms": 0.5,
    "warmup_runs": 2, "stable": True, "peak_rss_bytes": 1, "cpu_before": CPU, "cpu_after": CPU,
}  # fmt: skip
CHECK = {
    "event": "check", "entry": "a", "init_ms": 1.0, "agreement": 1.0, "max_error": 0.0,
    "samples": 30_000,
}  # fmt: skip
FAILED = {"event": "failed", "entry": "a", "round": None, "error": "x"}
HOST = {
    "protocol": 3, "machine": "aarch64", "system": "Linux", "release": "6.1", "python": "3.11.2",
    "cpu": "Cortex-A76", "cores": 4, "memory_bytes": 10**9, "governor": None,
    "runtimes": {"ai-edge-litert": "2.1.6"},
}  # fmt: skip

MANY = {f"runtime-{number}": "1.0" for number in range(30)}


def test_events_are_read():
    line = json.dumps({**FAILED, "new": 1})
    assert parse_event(line) == Failed(event="failed", entry="a", round=None, error="x")
    assert parse_event('{"event": "waiting"}') == Waiting(event="waiting")
    for event in (ROUND, CHECK, {"event": "start", "job": "j", "host": HOST}):
        assert parse_event(json.dumps(event)) is not None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Welcome to Raspberry Pi OS!",
        "{",
        "{}",
        "[1]",
        '{"event": "boom"}',
        '{"event": 3}',
        '{"event": "waiting"' + " " * MAX_LINE + "}",
        '{"event": ' + "[" * 100_000,
        '{"event": "failed", "entry": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"event": "round", "entry": "a", "round": 0, "latency_ns": [NaN',
        "\x1b[2J",
    ],
)
def test_anything_else_is_not(line):
    assert parse_event(line) is None


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (FAILED, {"entry": 3}),
        (FAILED, {"error": "x" * 5000}),
        (FAILED, {"round": -1}),
        (FAILED, {"round": 10**30}),
        (ROUND, {"latency_ns": [0]}),
        (ROUND, {"latency_ns": [-1]}),
        (ROUND, {"latency_ns": [float("nan")]}),
        (ROUND, {"latency_ns": []}),
        (ROUND, {"latency_ns": [True]}),
        (ROUND, {"latency_ns": [1] * 10_001}),
        (ROUND, {"latency_ns": ["5"]}),
        (ROUND, {"peak_rss_bytes": int("9" * 310)}),
        (ROUND, {"peak_rss_bytes": -1}),
        (ROUND, {"warmup_runs": -1}),
        (ROUND, {"round": 1000}),
        (ROUND, {"init_ms": 1e308}),
        (ROUND, {"cpu_before": {**CPU, "mhz": 1e308}}),
        (ROUND, {"cpu_after": {**CPU, "temperature_c": -1e9}}),
        (ROUND, {"cpu_after": None}),
        (CHECK, {"agreement": 1.5}),
        (CHECK, {"max_error": -1.0}),
        (CHECK, {"samples": -1}),
        (CHECK, {"samples": 10**12}),
        ({"event": "start", "job": "j"}, {"host": {**HOST, "protocol": 999}}),
        ({"event": "start", "job": "j"}, {"host": {**HOST, "cores": -5}}),
        ({"event": "start", "job": "j"}, {"host": {**HOST, "memory_bytes": -1}}),
        ({"event": "start", "job": "j"}, {"host": {**HOST, "python": "3.\u00b2"}}),
        ({"event": "start", "job": "j"}, {"host": {**HOST, "runtimes": {"x": "\u0663.1"}}}),
        ({"event": "start", "job": "j"}, {"host": {**HOST, "runtimes": MANY}}),
        (
            {"event": "answers", "entry": "a", "output": 0, "part": 0},
            {"data": "x" * (MAX_LINE // 2 + 1)},
        ),
        ({"event": "answers", "entry": "a", "output": 0, "data": ""}, {"part": 1000}),
        ({"event": "answers", "entry": "a", "part": 0, "data": ""}, {"output": 100}),
    ],
)  # fmt: skip
def test_invalid_values_are_errors(event, changes):
    with pytest.raises(InvalidEventError) as error:
        parse_event(json.dumps({**event, **changes}))
    assert len(str(error.value)) <= 200


def test_texts_are_harmless():
    result = parse_event(json.dumps({**FAILED, "error": "\x1b]0;title\x07 \u202eabc \x9b31m"}))
    assert result.error == "\\x1b]0;title\\x07 \\u202eabc \\x9b31m"
    info = HostInfo.model_validate_json(json.dumps({**HOST, "cpu": "ARM\x1b[2J"}))
    assert info.cpu == "ARM\\x1b[2J"


def test_both_sides_agree():
    assert agent.PROTOCOL == events.PROTOCOL
    assert agent.PART_BYTES == events.PART_BYTES
    assert agent.MAX_RUNS_PER_ROUND == 10_000
