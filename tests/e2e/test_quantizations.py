"""Every quantization scheme, step and pattern in whole runs of a tiny pipeline."""

import re

import pytest

from tests.e2e.conftest import deploy, edit, rows

pytestmark = pytest.mark.slow


def test_every_quantization_and_a_gate_that_is_not_met(trained):
    edit(
        trained,
        "benchmark:",
        """  f16: {quantize: f16}
  dynamic: {quantize: dynamic}
  int8: {quantize: int8}
  qat: {quantize: {scheme: int8, qat: true, epochs: 1}}
  pqat: {sparsify: {method: magnitude, sparsity: 0.8, epochs: 1, schedule: constant},
         quantize: {scheme: int8, qat: true, epochs: 1}}
  one-shot: {sparsify: {method: magnitude, sparsity: 0.4, epochs: 0}, storage: dense}
  untrained: {sparsify: {method: one-shot, sparsity: 0.4}, quantize: int8}
  two-four: {sparsify: {method: magnitude, sparsity: 0.5, pattern: "2:4", epochs: 1}}
gates:
  - {variant: f16, metric: bytes, max: 1}
benchmark:""",
    )
    done = deploy(trained)
    assert done.returncode == 3, done.stderr
    assert "gate NOT MET: f16 bytes" in done.stdout
    found = rows(trained)
    assert {r.status for r in found.values()} == {"ok"}
    for name in ("sparse-f32", "two-four"):
        assert found[name].model.sparsity == pytest.approx(0.5, abs=0.03)
    # ai-edge-litert 2.1 refuses int8 fully connected weights stored by single zeros.
    assert found["pqat"].model.sparsity == pytest.approx(0.8, abs=0.03)
    assert found["pqat"].model.storage == "dense"
    assert "weight stored dense: ai-edge-litert 2.1.6 rejects it sparse" in found["pqat"].notes[0]
    assert found["sparse-f32"].model.storage == "sparse"
    assert found["one-shot"].model.sparsity == pytest.approx(0.4, abs=0.02)
    assert found["one-shot"].model.storage == "dense"
    (told,) = (note for note in found["untrained"].notes if "bias" in note)
    assert re.search(r"output error \S+% without, \S+% with", told)
    assert found["f16"].model.bytes < 0.7 * found["dense-f32"].model.bytes


@pytest.mark.full
def test_steps_follow_one_another_and_auto_finds_what_pays(trained):
    edit(
        trained,
        "benchmark:",
        """  smaller: {sparsify: {method: channels, parameters: 0.6, epochs: 1}, quantize: int8}
  both:
    sparsify:
      - {method: channels, ratio: 0.5, epochs: 1}
      - {method: magnitude, sparsity: 0.5, pattern: block-1x16, epochs: 1}
    quantize: {scheme: int8, qat: true, epochs: 1}
  pattern: {sparsify: {method: magnitude, sparsity: 0.9, pattern: auto, epochs: 1}}
  found: {sparsify: {method: magnitude, sparsity: auto, max_accuracy_drop: 0.2, epochs: 1}}
benchmark:""",
    )
    done = deploy(trained)
    assert done.returncode == 0, done.stderr
    found = rows(trained)
    dense = found["dense-f32"].model.parameters
    assert found["smaller"].model.parameters <= 0.6 * dense
    assert found["smaller"].model.sparsity < 0.05
    assert found["smaller"].notes[0].startswith("channels removed: 5")
    assert found["both"].model.parameters < 0.55 * dense
    assert 0.4 < found["both"].model.sparsity < 0.7
    # Fully connected f32 layers: blocks of 4 pay on x86.
    assert found["pattern"].model.sparsity == pytest.approx(0.9, abs=0.02)
    assert found["pattern"].model.storage == "sparse"
    assert found["found"].notes[0].startswith("sparsity by layer: dense_1 0.")
    # The steps of a list are stages of their own.
    labels = [line.split("] ")[1].split(":")[0] for line in done.stderr.splitlines() if ": " in line
              and line.startswith("[")]  # fmt: skip
    assert {"sparsify both (channels)", "sparsify both (magnitude)", "sensitivity found"} <= {
        *labels
    }


@pytest.mark.full
def test_a_latency_budget_is_measured_on_the_device(folder):
    """With a tenth of the channels a wide network takes less than 0.8 of its time, whatever else
    goes on; how much less is the device's to say."""
    edit(folder, "widths: [32]", "widths: [1024, 1024]")
    edit(
        folder,
        "benchmark:",
        """  fast: {sparsify: {method: channels, latency: 0.8, epochs: 0}}
  other: {sparsify: {method: channels, latency: 0.001, epochs: 0}}
benchmark:""",
    )
    done = deploy(folder, "--variant", "fast", "--variant", "other")
    assert done.returncode == 1, done.stderr
    found = rows(folder)
    assert found["fast"].status == "ok"
    assert found["fast"].notes[0].startswith("channels removed: ")
    assert found["fast"].model.parameters < found["dense-f32"].model.parameters
    assert "cannot reach latency: 0.001; " in found["other"].error
