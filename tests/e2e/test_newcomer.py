"""The first minutes: a project is begun, and deployed with make. What takes longer is in
test_deploy.py and test_readme.py."""

import pytest

from edgesparse.graph.store import Store
from tests.conftest import once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DEPLOY_FIRST = "make deploy PIPELINE=first/pipelines/first.yaml"
VARIANTS = ("dense-f32", "dense-int8", "sparse-f32")


@pytest.fixture(scope="module")
def first(project, shared):
    """What `init` writes, deployed; measured for a shorter while than by default."""
    begun = project.shell(".venv/bin/edgesparse init first")
    assert begun.returncode == 0, begun.stderr
    path = project.folder / "first" / "pipelines" / "first.yaml"
    path.write_text(f"{path.read_text()}benchmark: {{min_seconds: 0.2, warmup_seconds: 0}}\n")
    done = once(shared / "deployed-first", lambda: project.shell(DEPLOY_FIRST))
    return project, done


def test_make_deploy_ends_with_the_table(first):
    project, done = first
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    (ship,) = (line for line in lines if line.startswith("ship "))
    assert ship.startswith(tuple(f"ship {name} (" for name in VARIANTS))
    assert "tflite-runtime 2.14.0" in done.stdout
    assert "ai-edge-litert" in done.stdout
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "\x1b" not in done.stdout + done.stderr
    assert Store(project.folder / ".edgesparse" / "store").problems() == []


def test_its_zeros_arrive_and_its_answers_are_right(first):
    project, done = first
    results = project.results_of(done)
    rows = {(row.runtime.name, row.variant): row for row in results.rows}
    assert len(rows) == len(VARIANTS) * 2
    assert {row.status for row in rows.values()} == {"ok"}
    for row in rows.values():
        assert row.latency_ms.rounds == 5
        assert row.latency_ms.samples >= 200
        assert row.score.device >= (0.85 if row.variant == "sparse-f32" else 0.95)
        assert abs(row.score.device - row.score.host) <= 0.005
    for runtime in ("tflite-runtime", "ai-edge-litert"):
        dense, sparse = rows[runtime, "dense-f32"].model, rows[runtime, "sparse-f32"].model
        assert sparse.storage == "sparse"
        assert sparse.sparsity >= 0.85
        assert sparse.bytes < 0.25 * dense.bytes
    assert results.releases == [], "this machine releases only what it is asked to"
    assert results.best().variant in VARIANTS
