"""Times of a file's operators."""

import json

import pytest

from edgesparse.commands.results.layer_times import LayerJob, with_layer_times
from edgesparse.devices.agent.events import Check, CpuState, Round
from edgesparse.devices.agent.job import Job
from edgesparse.measure.rows import Layer
from tests.report.test_table import row

CPU = CpuState(mhz=None, temperature_c=None, throttled=None)


def round_of(entry, number, *nanoseconds):
    return Round(
        event="round", entry=entry, round=number, latency_ns=list(nanoseconds), init_ms=1.0,
        first_ms=1.0, warmup_runs=1, stable=True, peak_rss_bytes=1, cpu_before=CPU, cpu_after=CPU,
    )  # fmt: skip


def test_a_time_is_the_median_of_rounds_and_none_where_the_delegate_left_the_operator():
    layers = [Layer(name=name, operator="CONV_2D", weights=1) for name in "abc"]
    measured = row("v").model_copy(update={"layers": layers})
    name = f"v@{measured.runtime.name}@{measured.threads}"
    owners = {f"{number}:{name}": (name, number) for number in range(3)}
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


@pytest.mark.slow
def test_each_layer_of_a_file_is_measured_alone(cli, tmp_path, tflite_files):
    done = cli("bench", tflite_files["sparse"], "--quick", "--layers")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(".edgesparse/runs/*/results.json")
    results = json.loads(path.read_text())
    assert results["command"].endswith(" --quick --layers")
    for entry in results["rows"]:
        times = {layer["name"]: layer["time_ms"] for layer in entry["layers"] if layer["weights"]}
        assert 0 < times["classifier"] < times["wide"]  # 10 outputs, and 512.
        decoders = [lay for lay in entry["layers"] if lay["operator"] == "DENSIFY"]
        assert not any(layer["time_ms"] for layer in decoders)
    assert "ms alone" in path.with_name("page.html").read_text()
