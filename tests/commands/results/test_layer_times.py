"""Times of a file's operators."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from edgesparse.commands.results.layer_times import (
    LayerJob,
    layer_job,
    measure_layers,
    with_layer_times,
)
from edgesparse.commands.results.record import RunRecord
from edgesparse.devices.agent.event_stream import ProtocolError
from edgesparse.devices.agent.events import Check, CpuState, Round
from edgesparse.devices.agent.job import Job
from edgesparse.graph import events as run_events
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.rows import Layer
from tests.report.test_table import results, row
from tests.tools.int8_model import Int8Model, Zeros

CPU = CpuState(mhz=None, temperature_c=None, throttled=None)


def round_of(entry, number, *nanoseconds):
    return Round(
        event="round", entry=entry, round=number, latency_ns=list(nanoseconds), init_ms=1.0,
        first_ms=1.0, warmup_runs=1, stable=True, peak_rss_bytes=1, cpu_before=CPU, cpu_after=CPU,
    )  # fmt: skip


def test_a_time_is_the_median_of_rounds_and_none_where_the_delegate_left_the_operator():
    layers = [Layer(name=name, operator="CONV_2D", weights=1) for name in "abc"]
    measured = row("v").model_copy(update={"layers": layers})
    name, key = "v@r", ("v", measured.runtime.name, measured.threads)
    owners = {f"{number}:{name}": (key, number) for number in range(3)}
    job = LayerJob(Job("j", 3, None, ()), owners)
    events = [
        round_of(f"0:{name}", 0, 1_000_000, 2_000_000, 9_000_000),
        round_of(f"0:{name}", 1, 4_000_000),
        round_of(f"0:{name}", 2, 3_000_000),
        Check(
            event="check", entry=f"1:{name}", init_ms=1.0, nodes=[("CONV_2D", "left", "too large")]
        ),
        round_of(f"1:{name}", 0, 1_000_000),
        round_of("another", 0, 1),
    ]
    (timed,) = with_layer_times([measured], measured.device, job, events)
    assert [layer.time_ms for layer in timed.layers] == [3.0, None, None]
    assert with_layer_times([measured], "another device", job, events) == [measured]


@pytest.fixture
def small_file(tmp_path):
    """Two convolutions."""
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, 4, 4, 8), 0.02, 3)
    for _ in range(2):
        x = m.conv(x, Zeros().weights(m.rng, (8, 1, 1, 8)))
    path = tmp_path / "small.tflite"
    path.write_bytes(m.finish(x))
    return path


def measured_alone(path, shapes=()):
    """A file's candidate, and its row."""
    layers = [Layer(name=name, operator="CONV_2D") for name in "ab"]
    done = row("v", clock="instructions").model_copy(update={"layers": layers})
    return Candidate("v", done.runtime, "xnnpack", 1, path=path, shapes=shapes), done


def test_on_a_clock_of_instructions_an_operator_is_run_a_few_times(tmp_path, small_file):
    candidate, done = measured_alone(small_file)
    rows = {("v", done.runtime.name, done.threads): done}
    simulated = layer_job("j", "instructions", [candidate], rows, tmp_path)
    assert simulated.job.rounds == 1
    assert simulated.job.settings.timeout_seconds == 600
    assert layer_job("j", "wall", [candidate], rows, tmp_path).job.rounds == 3
    assert (simulated.notes, len(simulated.job.entries)) == ((), 2)
    dynamic, _ = measured_alone(small_file, shapes=((0, (1, 512)),))
    nothing = layer_job("j", "wall", [dynamic], rows, tmp_path)
    assert nothing.job.entries == ()
    assert nothing.notes == ("layers of v were not measured: its shapes are dynamic",)


def test_events_of_an_agent_with_invalid_data_are_discarded(tmp_path, small_file, monkeypatch):
    """Those before an error of another kind are kept; neither fails the run."""
    device = SimpleNamespace(name="pi", clock="wall")
    for error, path, kept in (
        (ProtocolError("invalid data"), small_file, None),
        (OSError(28, "no space left"), small_file, 1.0),
        (None, tmp_path / "missing.tflite", None),
    ):
        candidate, done = measured_alone(path)
        record = RunRecord(results(), [], [done], [], [])

        def fail(_, job, job_events, *_rest, error=error):
            job_events.append(round_of(job.entries[0].name, 0, 1_000_000))
            raise error

        monkeypatch.setattr(record, "measure_job", fail)
        target = SimpleNamespace(device=device)
        measure_layers(record, target, [candidate], run_events.null_listener, threading.Event())
        (note,) = record.notes
        assert note.startswith("pi: not every layer was measured: ")
        assert record.rows[0].layers[0].time_ms == kept


@pytest.mark.slow
def test_each_layer_of_a_file_is_measured_alone(cli, tmp_path, tflite_files):
    done = cli("bench", tflite_files["sparse"], "--quick", "--layers")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(".edgesparse/runs/*/results.json")
    results = json.loads(path.read_text())
    assert results["command"].endswith(" --quick --layers")
    for entry in results["rows"]:
        times = {layer["name"]: layer["time_ms"] for layer in entry["layers"] if layer["weights"]}
        assert times["classifier"] > 0
        assert times["wide"] > 0
        decoders = [lay for lay in entry["layers"] if lay["operator"] == "DENSIFY"]
        assert not any(layer["time_ms"] for layer in decoders)
    assert "ms alone" in path.with_name("page.html").read_text()
