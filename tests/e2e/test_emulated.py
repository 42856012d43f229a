"""What digits and digits-mlp gain on an emulated Raspberry Pi 5: real aarch64 Linux, its clock
counting instructions. test_emulator.py has the boards themselves."""

import json

import pytest

from tests.e2e.conftest import VARIANTS_THERE, frames_of_digits, machines

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(2400)]


def test_a_deploy_boots_measures_releases_and_shuts_down(emulated):
    project, first = emulated.project, emulated.digits
    results = first.results
    assert "time = INSTRUCTION COUNT (simulated)" in " ".join(first.done.stdout.split())
    assert "6 of 6 predicted speed-ups are within 20% of the measured" in first.done.stdout
    assert {row.status for row in results.rows} == {"ok"}
    assert {row.clock for row in results.rows} == {"instructions"}
    assert len(results.rows) == len(VARIANTS_THERE) * 2  # Each on two runtimes.
    (device,) = results.devices
    assert (device.machine, "Cortex-A76" in device.cpu) == ("aarch64", True)
    (release,) = results.releases
    assert release.previous is None
    assert release.run_command is None
    assert "not kept: the emulated device is ephemeral" in " ".join(first.done.stdout.split())
    assert "set up pi5-emulated: " in first.done.stderr
    assert all(len(line) <= 100 for line in first.done.stdout.splitlines())
    assert not machines(project)


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_the_same_run_gives_the_same_figures(emulated, runtime):
    first, second = emulated.mlp, emulated.mlp_again
    before, after = first.rows(runtime), second.rows(runtime)
    assert set(before) == set(after)
    for variant, row in before.items():
        assert after[variant].latency_ms.p50 == pytest.approx(row.latency_ms.p50, rel=1e-3)


@pytest.mark.parametrize(("runtime", "least"), [("tflite-runtime", 2.0), ("ai-edge-litert", 2.5)])
def test_zeros_in_convolutions_pay_on_a_pi_5(emulated, runtime, least):
    first = emulated.digits
    row = first.rows(runtime)["sparse-f32"]
    assert row.model.sparsity >= 0.85
    assert row.model.storage == "sparse"
    assert row.speedup.baseline == "dense-f32"
    assert row.speedup.ci95[0] >= least
    assert row.score.drop <= 0.02


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_removed_channels_pay_with_int8(emulated, runtime):
    first = emulated.digits
    row = first.rows(runtime)["channels-int8"]
    assert row.speedup_vs_dense.baseline == "dense-int8"
    assert row.speedup_vs_dense.ratio >= 1.7


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_half_precision_is_computed_there(emulated, runtime):
    first = emulated.digits
    row = first.rows(runtime)["half-f16"]
    assert row.speedup.ratio >= 1.8
    assert row.speedup_vs_dense.baseline == "dense-f32"
    assert row.half_precision is True
    assert row.agreement == 1.0


def test_blocks_of_zeros_in_int8_convolutions_pay_most(emulated):
    first = emulated.digits
    rows = first.rows("ai-edge-litert")
    dense, channels, blocks, both = (
        rows[variant]
        for variant in ("dense-int8", "channels-int8", "sparse-int8-block", "channels-sparse-int8")
    )
    assert (dense.delegate, blocks.delegate, both.delegate) == (
        "xnnpack", "edgesparse", "edgesparse",
    )  # fmt: skip
    assert dense.latency_ms.p50 / blocks.latency_ms.p50 >= 2.6
    assert dense.latency_ms.p50 / both.latency_ms.p50 >= 4.5
    assert channels.latency_ms.p50 / both.latency_ms.p50 >= 2.0
    assert both.score.drop - dense.score.drop <= 0.02
    assert first.results.best().variant == "channels-sparse-int8"


def test_blocks_of_zeros_in_fully_connected_layers_pay_there(emulated):
    rows = emulated.mlp.rows("tflite-runtime")
    dense, sparse = rows["dense-int8"], rows["block-1x16-int8"]
    assert sparse.speedup_vs_dense.baseline == "dense-int8"
    assert sparse.speedup_vs_dense.ratio >= 4.0
    assert dense.latency_ms.p50 / sparse.latency_ms.p50 >= 4.0


def test_the_imported_model_answers_right_and_fast_there(emulated):
    """In a fresh Python, by the board's own clock, with the delegate that was measured."""
    done = emulated.program
    assert done.returncode == 0, done.stderr
    answers, calls_per_second, delegate = json.loads(done.stdout)
    _, digits = frames_of_digits()
    right = sum(answer == digit for answer, digit in zip(answers, digits, strict=True))
    assert right >= 0.93 * len(digits)
    assert calls_per_second >= 100
    assert delegate.startswith("libedgesparse")
    assert "Warning" not in done.stderr
