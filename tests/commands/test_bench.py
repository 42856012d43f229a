"""Measuring files with the delegate that is sent along."""

import json

import numpy as np
import pytest

from edgesparse.delegate.load import TESTED
from tests.conftest import HERE, run_cli
from tests.tools.int8_model import Int8Model, Zeros

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "devices").mkdir()
    both = HERE.replace("[ai-edge-litert]", "[tflite-runtime, ai-edge-litert]")
    (folder / "devices" / "here.yaml").write_text(both)
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, 16, 16, 64), 0.02, 3)
    for _ in range(2):
        x = m.conv(x, Zeros(0.9).weights(m.rng, (64, 1, 1, 64)))
    (folder / "sparse.tflite").write_bytes(m.finish(m.mean(x)))
    return folder


def bench(folder, *arguments):
    done = run_cli(
        "bench", "sparse.tflite", "--device", "here", "--quick", "--json", *arguments, cwd=folder
    )
    return done, json.loads(done.stdout) if done.stdout else None


def test_both_delegates_are_measured_in_turns(folder):
    done, results = bench(folder, "--delegate", "xnnpack", "--delegate", "edgesparse")
    assert done.returncode == 0, done.stderr
    rows = {(row["runtime"]["name"], row["delegate"]): row for row in results["rows"]}
    assert len(rows) == 4
    for (_, delegate), row in rows.items():
        assert row["speedup"]["baseline"] == "sparse xnnpack"
        assert row["variant"] == f"sparse {delegate}"
        assert [weight["dense_bytes"] for weight in row["weights"]] == [64 * 64] * 2
        skipped = ["delegate edgesparse" in weight["reason"] for weight in row["weights"]]
        assert skipped == [delegate == "edgesparse"] * 2
        notes = [note for note in row["notes"] if "unstable" not in note]
        expected = "delegate edgesparse runs 2 of 3 nodes; not MEAN (operator not supported)"
        assert notes == ([expected] if delegate == "edgesparse" else [])


def test_one_delegate_in_place_of_the_device_files(folder):
    done, results = bench(folder, "--delegate", "edgesparse")
    assert done.returncode == 0, done.stderr
    assert {(row["variant"], row["delegate"]) for row in results["rows"]} == {
        ("sparse", "edgesparse")
    }
    assert "--delegate edgesparse" in results["command"]


def test_an_unknown_runtime_is_refused_and_the_others_are_measured(folder, monkeypatch):
    monkeypatch.setitem(TESTED, "tflite-runtime", ("1.0",))
    done, results = bench(folder, "--delegate", "edgesparse")
    assert done.returncode == 1
    rows = {row["runtime"]["name"]: row for row in results["rows"]}
    assert rows["ai-edge-litert"]["status"] == "ok"
    assert rows["tflite-runtime"]["error"] == (
        "delegate edgesparse is not tested with tflite-runtime 2.14.0, only with 1.0"
    )


def test_a_delegate_of_another_name_is_refused(folder):
    done, _ = bench(folder, "--delegate", "hexagon")
    assert done.returncode == 2
    assert "'hexagon' is not one of 'xnnpack', 'edgesparse'" in done.stderr
