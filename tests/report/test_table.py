import io

import pytest
from rich.console import Console

from edgesparse.measure.results import DeviceInfo, Results
from edgesparse.measure.rows import GateResult, Row
from edgesparse.report.table import block_cells, blocks, number_notes
from edgesparse.report.terminal import WIDTH, print_results, print_rows


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


def printed(run, terminal=False, width=WIDTH, notes=False):
    stream = io.StringIO()
    print_results(run, Console(file=stream, width=width, force_terminal=terminal), notes=notes)
    return stream.getvalue()


def best_texts(run):
    """Texts of the cells that are best in their column, and of the name to ship."""
    lines = [line for block in blocks(run) for line in block_cells(block, number_notes(run.rows))]
    return {cell.text for line in lines for cell in line if cell.best}


RUN = results(
    row("dense-f32", 123.456),
    row("sparse-int8-of-a-long-name", 41.2, 2.9, 3.1),
    row("broken", error="the runtime crashed (SIGSEGV)"),
)


def test_table_fits_in_100_columns_without_control_codes():
    text = printed(RUN)
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("width", [60, 80, 120])
def test_narrow_terminal_omits_the_least_important_columns(width):
    lines = printed(RUN, width=width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    heads = next(line for line in lines if line.startswith("variant")).split()
    assert {"size", "p50", "speed-up"} <= set(heads)
    assert ("RAM" in heads) == (width == 120)


def test_names_are_folded_between_words():
    lines = [line.split() for line in printed(RUN, width=60).splitlines()]
    index = next(n for n, words in enumerate(lines) if words[:2] == ["*", "sparse-int8-of-a-"])
    assert lines[index + 1] == ["long-name"]


def test_columns_align():
    lines = printed(RUN).splitlines()
    header = next(line for line in lines if line.startswith("variant"))
    end = header.index("p50 ms") + len("p50 ms")
    body = [line for line in lines if line.endswith("51 ")]
    assert len(body) == 2
    assert all(line[end - 1] in "0123456789*" and line[end] == " " for line in body)


def test_best_values_are_marked_and_failures_explained():
    text = printed(RUN)
    assert {"41.20", "3.00x", "sparse-int8-of-a-long-name"} <= best_texts(RUN)
    assert "\n* sparse-int8-of-" in text
    assert "broken [1] FAILED - -" in " ".join(text.split())
    assert "[1] the runtime crashed (SIGSEGV)" in text


def test_rows_with_overlapping_intervals_are_equally_good():
    """1.00 and 1.01 overlap, 1.05 does not; nothing is marked where all overlap."""
    best = best_texts(results(row("a", 1.0), row("b", 1.01), row("c", 1.05)))
    assert {"1.000", "1.010"} <= best
    assert "1.050" not in best
    assert not {"1.000", "1.010"} & best_texts(results(row("a", 1.0), row("b", 1.01)))


def test_best_metric_is_decided_by_the_paired_drop():
    def scored(name, device, low, high):
        score = {"name": "accuracy", "unit": "%", "samples": 360, "device": device,
                 "drop": 0.99 - device, "drop_ci95": (low, high)}  # fmt: skip
        return row(name, 1.0, metrics=[score])

    worse = scored("worse", 0.90, 0.06, 0.12)
    best = best_texts(
        results(scored("good", 0.99, 0, 0), scored("alike", 0.98, -0.01, 0.03), worse)
    )
    assert {"99.0", "98.0"} <= best
    assert "90.0" not in best


def test_instruction_clock_is_labelled():
    text = printed(results(row("dense-f32", 1.0, clock="instructions")))
    assert "time = INSTRUCTION COUNT (simulated)" in text


def test_quick_and_interrupted_runs_are_labelled():
    text = printed(results(row("dense-f32", 1.0), quick=True, finished=False))
    assert "QUICK: indicative only" in text
    assert "INTERRUPTED" in text


def test_multiply_accumulates_have_a_column_where_files_differ_in_them():
    def with_macs(name, macs):
        dense = row(name, 1.0)
        return dense.model_copy(update={"model": dense.model.model_copy(update={"macs": macs})})

    run = results(with_macs("dense-f32", 25_838_848), with_macs("less", 11_870_928))
    assert "25.8M" in printed(run, width=120)
    assert "11.9M" in best_texts(run)
    assert "MACs" not in printed(results(with_macs("dense-f32", 1000), with_macs("a", 1001)), 120)


def test_unstable_rows_have_one_line():
    doubtful = [row(v, 1.0, notes=[f"unstable: {v}"]) for v in ("dense-f32", "b", "c")]
    text = printed(results(*doubtful))
    assert text.count("unstable") == 1
    assert "unstable: 3 rows; stop other programs" in text
    assert "[1]" not in text
    assert "unstable" not in printed(RUN)


def test_advice_is_counted_and_printed_where_it_is_wanted():
    run = results(row("dense-f32", 1.0), advice=["zeros save no time"])
    assert f"1 more note: edgesparse report {run.run} --notes" in printed(run)
    assert "zeros save" not in printed(run)
    assert "note: zeros save no time" in printed(run, notes=True)


def test_gates_that_are_met_are_counted():
    gate = GateResult(
        variant="a", metric="accuracy_drop", device="pi", runtime="r", threads=1, value=0.01,
        min=None, max=0.02, passed=True,
    )  # fmt: skip
    run = results(row("dense-f32", 1.0), gates=[gate, gate])
    assert "2 gates met" in printed(run)
    assert "note: gate met: a accuracy_drop 0.01" in printed(run, notes=True)


def test_gates_are_listed():
    gate = GateResult(
        variant="a", metric="accuracy_drop", device="pi", runtime="ai-edge-litert", threads=1,
        value=0.05, min=None, max=0.02, passed=False,
    )  # fmt: skip
    text = printed(results(row("dense-f32", 1.0), gates=[gate]))
    assert "gate NOT MET: a accuracy_drop 0.05 (at most 0.02) on pi, ai-edge-litert" in text


def test_markup_from_devices_is_printed_as_text():
    text = printed(results(row("x", error="[red]not markup[/red] :smile:")))
    assert "[red]not markup[/red] :smile:" in text


def test_substitute_baseline_of_a_device_is_named():
    other = {"ratio": 1.0, "ci95": (1.0, 1.0), "baseline": "dense-int8"}
    text = printed(results(row("dense-int8", 1.0, speedup=other, device="coral")))
    assert "speed-up vs dense-f32 (dense-int8 on coral)" in " ".join(text.split())


def test_releases_and_failures_are_listed():
    release = {
        "device": "pi", "pipeline": "p", "variant": "sparse-f32", "runtime": "ai-edge-litert",
        "digest": "abc", "previous": "def", "folder": "/w/current",
        "run_command": "python3 predict.py x",
    }  # fmt: skip
    run = Results.model_validate(
        {**RUN.model_dump(), "releases": [release], "failures": ["device pi: disk full"]}
    )
    text = " ".join(printed(run).split())
    assert (
        "released on pi: p abc (sparse-f32, ai-edge-litert), replaces def; run on the device: "
        in text
    )
    assert "FAILED: device pi: disk full" in text
    gone = Results.model_validate(
        {**run.model_dump(), "releases": [{**release, "run_command": None}]}
    )
    assert "not kept: the emulated device is ephemeral" in " ".join(printed(gone).split())


def test_rows_before_the_end_are_lines_or_a_table_without_verdict():
    def rows_printed(run):
        stream = io.StringIO()
        print_rows(run, Console(file=stream, width=WIDTH))
        return stream.getvalue()

    ready = row("sparse", 1.0).model_copy(update={"latency_ms": None})
    assert rows_printed(results(ready)) == (
        "ready: sparse: 1.23 MB, 90.0 % zeros, accuracy 97.8 %; its time follows\n"
    )
    text = rows_printed(results(*RUN.rows, notes=["pi: provisional times"]))
    assert "pi | ai-edge-litert" in text
    assert "pi: provisional times" in text
    assert "ship" not in text
    assert "*" not in text
    assert "broken [1]" in text
    assert "[1] the runtime crashed" in text
    assert rows_printed(results()) == ""


@pytest.mark.parametrize("metric", ["mean_absolute_error", "a_very_long_metric_of_a_task"])
def test_a_long_metric_leaves_room_for_names_and_their_notes(metric):
    metrics = [{"name": metric, "device": 0.9, "samples": 9}]
    ours = row("sparse-int8", 1.0, 0.01, 0.02, notes=["taken", "left"], metrics=metrics)
    run = results(
        row("dense-f32", 1234.5, metrics=metrics),
        ours.model_copy(update={"delegate": "edgesparse"}),
    )
    text = printed(run, width=60)
    table = " ".join(line[:12] for line in text.splitlines())
    assert "…" not in text
    assert "(e) [1] [2]" in " ".join(table.split())


def test_delegates_of_a_block_have_marks_of_their_own():
    marks = [
        row(name, 1.0).model_copy(update={"delegate": name})
        for name in ("xnnpack", "edgesparse", "edgetpu")
    ]
    assert "delegate xnnpack, (e) edgesparse, (t) edgetpu" in printed(results(*marks))
