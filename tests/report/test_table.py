import io

import pytest
from rich.console import Console

from edgesparse.measure.results import DeviceInfo, Results
from edgesparse.measure.rows import Coverage, GateResult, Row
from edgesparse.report.table import ms_text, size_text, verdicts
from edgesparse.report.terminal import WIDTH, print_results


def row(variant, p50=None, low=0.9, high=1.1, error=None, **more):
    data = {
        "pipeline": "p",
        "device": "pi",
        "runtime": {"name": "ai-edge-litert", "version": "2.1.6"},
        "delegate": "xnnpack",
        "threads": 1,
        "clock": "wall",
        "variant": variant,
        "status": "failed" if error else "ok",
        "error": error,
    }
    if p50 is not None:
        ratio = {"ratio": (low + high) / 2, "ci95": (low, high), "baseline": "dense-f32"}
        data |= {
            "model": {
                "sha256": "0", "bytes": int(1_234_567 * p50), "bytes_gzip": 9, "parameters": 9,
                "zeros": 8, "sparsity": 0.9, "storage": "sparse",
            },
            "metrics": [{"name": "accuracy", "unit": "%", "device": 0.978, "drop": 0.0123,
                         "samples": 360}],
            "latency_ms": {
                "p50": p50, "p90": p50 * 1.1, "p99": p50 * 2, "mean": p50, "std": 0.1,
                "samples": 1000, "rounds": 5, "ci95": (p50 * 0.99, p50 * 1.01),
            },
            "peak_rss_bytes": 51_200_000,
            "speedup": ratio,
        }  # fmt: skip
        if variant != "dense-f32":
            data["speedup_vs_dense"] = ratio
    return Row.model_validate({**data, **more})


def results(*rows, **more):
    device = DeviceInfo(
        name="pi", description="", machine="aarch64", cpu="Cortex-A76", cores=4, python="3.11.2",
        governor="performance",
    )  # fmt: skip
    return Results(
        run="20260101-000000-p-0000", started="now", host={}, versions={}, pipeline="p",
        pipeline_digest="", baseline="dense-f32", devices=[device], rows=list(rows), **more,
    )  # fmt: skip


def printed(found, terminal=False, width=WIDTH):
    stream = io.StringIO()
    print_results(found, Console(file=stream, width=width, force_terminal=terminal))
    return stream.getvalue()


FOUND = results(
    row("dense-f32", 123.456),
    row("sparse-int8-of-a-long-name", 41.2, 2.9, 3.1),
    row("broken", error="the runtime crashed (SIGSEGV)"),
)


def test_it_fits_in_100_columns_without_control_codes():
    text = printed(FOUND)
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_a_terminal_and_what_it_leaves_out_is_the_least_important(width):
    lines = printed(FOUND, width=width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    heads = next(line for line in lines if line.startswith("variant")).split()
    assert {"size", "p50", "speed-up"} <= set(heads)
    assert ("RAM" in heads) == (width == 120)


def test_names_are_broken_between_words():
    lines = [line.split() for line in printed(FOUND, width=60).splitlines()]
    place = next(n for n, words in enumerate(lines) if words and words[0] == "sparse-int8-of-a-")
    assert lines[place + 1] == ["long-name"]


def test_columns_align():
    lines = printed(FOUND).splitlines()
    header = next(line for line in lines if line.startswith("variant"))
    end = header.index("p50 ms") + len("p50 ms")
    body = [line for line in lines if line.endswith("51 ")]
    assert len(body) == 2
    assert all(line[end - 1] in "0123456789*" and line[end] == " " for line in body)


def test_best_values_are_marked_and_failures_explained():
    text = printed(FOUND)
    assert "41.20*" in text
    assert "3.00x*" in text
    assert "broken [1] FAILED - -" in " ".join(text.split())
    assert "[1] the runtime crashed (SIGSEGV)" in text


def test_what_intervals_do_not_tell_apart_is_as_good():
    """1.00 and 1.01 are; 1.05 is not; nothing is marked where all of them are."""
    text = printed(results(row("a", 1.0), row("b", 1.01), row("c", 1.05)))
    assert "1.000*" in text
    assert "1.010*" in text
    assert "1.050*" not in text
    text = printed(results(row("a", 1.0), row("b", 1.01)))
    assert "1.000*" not in text
    assert "1.010*" not in text


def test_the_best_of_a_metric_is_told_by_what_is_lost():
    def scored(name, device, low, high):
        score = {"name": "accuracy", "unit": "%", "samples": 360, "device": device,
                 "drop": 0.99 - device, "drop_ci95": (low, high)}  # fmt: skip
        return row(name, 1.0, metrics=[score])

    worse = scored("worse", 0.90, 0.06, 0.12)
    text = printed(results(scored("good", 0.99, 0, 0), scored("alike", 0.98, -0.01, 0.03), worse))
    assert "99.0*" in text
    assert "98.0*" in text
    assert "90.0*" not in text


def test_a_clock_that_counts_instructions_is_labelled():
    text = printed(results(row("dense-f32", 1.0, clock="instructions")))
    assert "clock: INSTRUCTIONS, not time" in text


def test_quick_and_interrupted_runs_are_labelled():
    text = printed(results(row("dense-f32", 1.0), quick=True, finished=False))
    assert "QUICK, not for claims" in text
    assert "INTERRUPTED" in text


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.2, 1.4, "1.20-1.40x as fast as dense-f32, 2.0x smaller: zeros pay"),
        (0.9, 1.1, "zeros pay in size"),
        (0.97, 0.996, "0.97-1.00x as fast as dense-f32, 2.0x smaller: zeros pay in size"),
        (0.5, 0.6, "zeros cost time"),
        (0.0004, 0.0006, "0.0004-0.0006x as fast as dense-f32, 2.0x smaller: zeros cost time"),
    ],
)
def test_verdicts_follow_the_interval(low, high, verdict):
    found = results(row("dense-f32", 2.0), row("sparse", 1.0, low, high))
    assert verdicts(found)[0].endswith(verdict)


def test_a_percent_pays_nobody():
    dense, sparse = row("dense-f32", 2.0), row("sparse", 1.0, 1.003, 1.02)
    speedup = sparse.speedup_vs_dense.model_copy(update={"ratio": 1.01, "ci95": (1.006, 1.014)})
    found = results(dense, sparse.model_copy(update={"speedup_vs_dense": speedup}))
    assert verdicts(found)[0].endswith("zeros pay in size")


def test_a_step_that_was_asked_for_zeros_removed_no_channels():
    sparse = row("sparse", 1.0, 0.9, 1.1)
    few = sparse.model.model_copy(update={"sparsity": 0.01})
    asked = Coverage(target=0.8, achieved=0.01)
    found = results(
        row("dense-f32", 2.0), sparse.model_copy(update={"model": few, "coverage": asked})
    )
    assert "removed channels" not in verdicts(found)[0]
    assert "80->1.0" in printed(found)


def test_multiply_accumulates_have_a_column_where_files_differ_in_them():
    def with_macs(name, macs):
        one = row(name, 1.0)
        return one.model_copy(update={"model": one.model.model_copy(update={"macs": macs})})

    text = printed(results(with_macs("dense-f32", 25_838_848), with_macs("less", 11_870_928)), 120)
    assert "25.8M" in text
    assert "11.9M*" in text
    assert "MACs" not in printed(results(with_macs("dense-f32", 1000), with_macs("a", 1001)), 120)


def test_advice_on_unstable_rows_is_given_once():
    doubtful = [row(v, 1.0, notes=[f"unstable: {v}"]) for v in ("dense-f32", "b")]
    assert printed(results(*doubtful)).count("unstable rows: end other programs") == 1
    assert "unstable rows" not in printed(FOUND)


def test_gates_are_listed():
    gate = GateResult(
        variant="a", metric="accuracy_drop", device="pi", runtime="ai-edge-litert", threads=1,
        value=0.05, min=None, max=0.02, passed=False,
    )  # fmt: skip
    text = printed(results(row("dense-f32", 1.0), gates=[gate]))
    assert "gate NOT MET: a accuracy_drop 0.05 (at most 0.02) on pi, ai-edge-litert" in text


def test_text_from_devices_is_not_interpreted():
    text = printed(results(row("x", error="[red]not markup[/red] :smile:")))
    assert "[red]not markup[/red] :smile:" in text


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 B"), (1234, "1.23 KB"), (988_424, "988.4 KB"), (3_290_952, "3.29 MB"),
     (999_600, "1.00 MB"), (12_800_000, "12.8 MB")],
)  # fmt: skip
def test_sizes(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.00126, "0.0013"),
        (0.0456, "0.046"),
        (1.2348, "1.235"),
        (12.341, "12.34"),
        (123.46, "123.5"),
    ],
)
def test_milliseconds(ms, text):
    assert ms_text(ms) == text


def device(name, error=None):
    return DeviceInfo(name=name, description="", machine="aarch64", cpu="A76", error=error)


def test_several_devices_have_a_summary_and_a_dead_one_says_why():
    found = results(
        row("dense-f32", 2.0),
        row("sparse-f32", 1.0, 1.9, 2.1),
        row("dense-f32", error="device gone: no answer", device="gone"),
    ).model_copy(update={"devices": [device("pi"), device("gone", "device gone: no answer")]})
    lines = printed(found).splitlines()
    assert "best on pi: sparse-f32 with ai-edge-litert, p50 1.000 ms, 1.23 MB" in lines
    assert "best on gone: none ran and met its gates" in lines
    assert "gone: device gone: no answer" in lines
    assert any(line.startswith("gone | ai-edge-litert") for line in lines)


def test_one_device_needs_no_summary():
    assert "best on" not in printed(FOUND)


def test_another_baseline_of_a_device_is_named():
    other = {"ratio": 1.0, "ci95": (1.0, 1.0), "baseline": "dense-int8"}
    text = printed(results(row("dense-int8", 1.0, speedup=other, device="coral")))
    assert "speed-up against dense-f32, on coral dense-int8" in " ".join(text.split())


def test_what_was_released_and_what_failed_is_told():
    release = {
        "device": "pi", "pipeline": "p", "variant": "sparse-f32", "runtime": "ai-edge-litert",
        "digest": "abc", "previous": "def", "folder": "/w/current",
        "run_command": "python3 predict.py x",
    }  # fmt: skip
    found = Results.model_validate(
        {**FOUND.model_dump(), "releases": [release], "failures": ["device pi: disk full"]}
    )
    text = " ".join(printed(found).split())
    assert (
        "released on pi: p abc (sparse-f32, ai-edge-litert), before it def; try it there: " in text
    )
    assert "FAILED: device pi: disk full" in text
    gone = Results.model_validate(
        {**found.model_dump(), "releases": [{**release, "run_command": None}]}
    )
    assert "gone with the emulated device" in " ".join(printed(gone).split())


@pytest.mark.parametrize(
    ("low", "said"),
    [
        (1.85, "1.85-1.95x as fast as dense-f32: computes in half precision, which pays"),
        (0.97, "0.97-1.07x as fast as dense-f32: computes as before: half precision does not pay"),
    ],
)
def test_half_precision_is_said_where_a_timing_saw_it(low, said):
    rows = [row("dense-f32", 1.0), row("half-f16", 1.0, low, low + 0.1)]
    rows[1] = rows[1].model_copy(update={"half_precision": low > 1.2})
    (line,) = verdicts(results(*rows))
    assert line.endswith(said)
