"""The main job, whole and real: train, prune, quantize, convert, verify, measure, print."""

import json

import pytest

from edgesparse.graph.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(2400)]
VARIANTS = [
    "dense-f32", "dense-int8", "half-f16", "channels-int8", "sparse-f32", "sparse-int8-block",
    "channels-sparse-int8",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(deployed):
    project, done = deployed
    return {(r.runtime.name, r.variant): r for r in project.results_of(done).rows}


def test_make_deploy_ends_with_the_table(deployed):
    project, done = deployed
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    (ship,) = (line for line in lines if line.startswith("ship "))
    assert ship.startswith(tuple(f"ship {name} (" for name in VARIANTS))
    assert "tflite-runtime 2.14.0" in done.stdout
    assert "ai-edge-litert" in done.stdout
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "\x1b" not in done.stdout + done.stderr
    assert Store(project.folder / ".edgesparse" / "store").problems() == []


def test_there_are_seven_variants_on_two_runtimes(rows):
    assert len(rows) == 14
    assert {r.status for r in rows.values()} == {"ok"}


def test_accuracy(rows):
    for runtime in ("tflite-runtime", "ai-edge-litert"):
        dense = rows[runtime, "dense-f32"].score
        assert dense.device >= 0.97
        for variant in ("sparse-f32", "sparse-int8-block"):
            assert rows[runtime, variant].score.drop <= 0.02
        # Half of the multiply-accumulates, and within a point.
        channels = rows[runtime, "channels-int8"]
        assert channels.score.drop - rows[runtime, "dense-int8"].score.drop <= 0.01
        assert channels.notes[0].startswith("channels removed: ")
        assert channels.model.bytes < 0.6 * rows[runtime, "dense-int8"].model.bytes
    for row in rows.values():
        assert abs(row.score.device - row.score.host) <= 0.005
        assert row.score.samples == 360


def test_the_zeros_arrived_and_the_files_are_smaller(rows):
    for runtime in ("tflite-runtime", "ai-edge-litert"):
        for scheme in ("f32", "int8"):
            sparse_variant = "sparse-f32" if scheme == "f32" else "sparse-int8-block"
            dense, sparse = (
                rows[runtime, variant].model for variant in (f"dense-{scheme}", sparse_variant)
            )
            assert sparse.sparsity >= 0.85
            assert sparse.storage == "sparse"
            assert sparse.bytes < (0.25 if scheme == "f32" else 0.55) * dense.bytes


def test_every_row_is_complete(rows):
    for row in rows.values():
        assert row.latency_ms.rounds == 5
        assert row.latency_ms.samples >= 200
        low, high = row.latency_ms.ci95
        assert 0 < low <= row.latency_ms.p50 <= high
        assert row.latency_ms.p50 <= row.latency_ms.p90 <= row.latency_ms.p99
        assert row.speedup.baseline == "dense-f32"
        assert row.agreement >= 0.9
        assert row.peak_rss_bytes > 1e6
        assert row.init_ms > 0
        assert row.first_inference_ms > 0


def test_a_second_deploy_does_nothing_but_measure(deployed):
    project, _ = deployed
    planned = stages_of(project, "pipelines/digits.yaml")
    assert len(planned) == 34  # The preflight, the untrained model, and 32 that a run counts.
    assert all(stage["cached"] for stage in planned)
    few = "--variant dense-int8 --variant channels-int8"
    done = project.shell(f".venv/bin/edgesparse deploy pipelines/digits.yaml --quick {few}")
    stages = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert len(stages) > 10
    assert all(line.endswith(": cached") for line in stages), done.stderr
    assert "QUICK: indicative only" in done.stdout
    assert done.returncode in (0, 3), done.stderr


def stages_of(project, path):
    done = project.shell(f".venv/bin/edgesparse plan {path} --json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["stages"]


def plan(project, path):
    return {s["label"]: s["why"] for s in stages_of(project, path) if not s["cached"]}


def test_only_what_changed_would_run_again(deployed):
    project, _ = deployed
    text = (project.folder / "pipelines" / "digits.yaml").read_text()
    changed = project.folder / "pipelines" / "changed.yaml"
    changed.write_text("# a comment\n" + text)
    assert plan(project, "pipelines/changed.yaml") == {}
    changed.write_text(text.replace("epochs: 8", "epochs: 4", 1))
    why = plan(project, "pipelines/changed.yaml")
    assert len(why) == 6
    assert all("channels-sparse-int8" in label for label in why)
    assert why["sparsify channels-sparse-int8 (magnitude)"] == "spec.sparsify.epochs: 8 -> 4"
    assert why["convert channels-sparse-int8"] == "its model changed"


def test_what_will_not_pay_is_told_before_training_and_under_the_table(deployed):
    project, done = deployed
    said = (
        "local: no speed-up expected from zeros in 13 layers of sparse-f32 on tflite-runtime, "
        "ai-edge-litert"
    )
    before, _, _ = done.stderr.partition("train ...")
    assert said in before
    run = project.results_of(done).run
    noted = project.shell(f".venv/bin/edgesparse report {run} --notes")
    assert said in " ".join(noted.stdout.split())
    planned = project.shell(".venv/bin/edgesparse plan pipelines/digits.yaml --notes")
    assert f"warning: {said}: XNNPACK has no sparse kernels on x86 with AVX" in planned.stdout


def test_fully_connected_blocks(deployed_mlp):
    _, done, results = deployed_mlp
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {(r.runtime.name, r.variant): r for r in results.rows}
    for runtime in ("tflite-runtime", "ai-edge-litert"):
        dense, block = (rows[runtime, v].model for v in ("dense-int8", "block-1x16-int8"))
        assert block.storage == "sparse"
        assert block.bytes <= dense.bytes / 6
        assert rows[runtime, "block-1x4-f32"].model.sparsity >= 0.895
