"""100 streams of events as a hostile device says them: rows, or one error, and never more."""

import io
import json

import pytest
from rich.console import Console

from edgesparse.devices.agent.event_stream import EventStream
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.measure.benchmark import build_job, build_rows
from edgesparse.measure.gates import check_gates
from edgesparse.measure.results import Results
from edgesparse.report import formats, terminal
from edgesparse.spec.pipeline import Benchmark, Gate
from tests.devices.agent.test_events import FAILED, HOST, ROUND
from tests.measure.test_benchmark import asked, candidate, check  # noqa: F401 (a fixture)
from tests.report.test_hostile import CONTROLS
from tests.tools.fuzz import chances, mutated_text

SCRAPS = [
    "0", "-1", "-5", "1e308", "1e999", "-1e999", "NaN", "Infinity", "null", "true", "[]", "{}",
    '""', "9" * 310, "9" * 5000, "[" * 3000, '"3.²"', '"\\u001b[2J"', '"\\ud800"', "999", "0.0",
    ",", ":", "}", "{", '"', "\\", "\n", "1000", "1001", str(10**15), str(2**63), "1e-300",
    '"event": "end"', '{"event": "end"}\n', '{"event": "waiting"}\n', "\x00", "\x1b]0;x\x07",
]  # fmt: skip
GATES = [
    Gate(variant=variant, metric=metric, min=0, max=1)
    for variant in ("dense", "sparse")
    for metric in ("accuracy_drop", "f1", "p50_ms", "speedup", "peak_rss_bytes", "agreement")
]


def stream(job):
    """What an honest device says."""
    yield {"event": "start", "job": job.id, "host": HOST}
    for variant in ("dense", "sparse"):
        yield from (event.model_dump() for event in check(variant, 0.9))
    for number in range(job.rounds):
        for entry in job.entries:
            times = [10_000 + 100 * number + place for place in range(8)]
            yield {**ROUND, "entry": entry.name, "round": number, "latency_ns": times}
    yield {**FAILED, "entry": job.entries[0].name, "round": 1}
    yield {"event": "end"}


@pytest.mark.slow
def test_hostile_streams_become_rows_or_one_error():
    candidates = [candidate("dense"), candidate("sparse", dense_twin="dense")]
    job = build_job("run", Benchmark(rounds=3), candidates)
    honest = [json.dumps(event) for event in stream(job)]
    outcomes = {"lied": 0, "heard": 0}
    for chance in chances(100):
        lines = list(honest)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(lines))
            lines[place] = mutated_text(lines[place], SCRAPS, chance)
        chance.shuffle(lines) if chance.random() < 0.2 else None
        events_stream = EventStream("pi", 1.0, job, lambda _: None)
        events = events_stream.events
        try:
            for line in "\n".join(lines).split("\n"):
                events_stream.feed(line)
            outcomes["heard"] += 1
        except DeviceError as error:
            assert len(str(error)) < 1000
            events = []
            outcomes["lied"] += 1
        rows = build_rows("p", "pi", "dense", candidates, events)
        assert [row.variant for row in rows] == ["dense", "sparse"]
        found = Results(
            run="r", started="", host={}, versions={}, pipeline="p", pipeline_digest="",
            baseline="dense", rows=rows, gates=check_gates(GATES, rows),
        )  # fmt: skip
        out = io.StringIO()
        terminal.print_results(found, Console(file=out, width=100))
        for said in (out.getvalue(), formats.markdown(found), formats.csv_text(found)):
            assert not CONTROLS.search(said)
        json.loads(formats.json_text(found), parse_constant=lambda name: 1 / 0)
    assert min(outcomes.values()) > 10, outcomes
