import json

import pytest

from edgesparse.devices.measuring.events import MAX_LINE, Failed, Waiting, parse_event


def test_events_are_read():
    line = json.dumps({"event": "failed", "entry": "a", "round": None, "error": "x", "new": 1})
    assert parse_event(line) == Failed(event="failed", entry="a", round=None, error="x")
    assert parse_event('{"event": "waiting"}') == Waiting(event="waiting")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Welcome to Raspberry Pi OS!",
        "{",
        "{}",
        "[1]",
        '{"event": "boom"}',
        '{"event": "failed", "entry": 3, "round": null, "error": "x"}',
        '{"event": "failed", "entry": "a", "round": null, "error": "' + "x" * 5000 + '"}',
        '{"event": "round", "entry": "a", "round": 0, "latency_ns": [-1]}',
        '{"event": "round", "entry": "a", "round": 0, "latency_ns": [NaN]}',
        '{"event": "waiting"' + " " * MAX_LINE + "}",
        '{"event": ' + "[" * 100_000,
        "\x1b[2J",
    ],
)
def test_anything_else_is_not(line):
    assert parse_event(line) is None
