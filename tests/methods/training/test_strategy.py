"""One training on several devices: two logical CPUs stand for GPUs."""

import pytest

import edgesparse
from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.reading.load import parse_pipeline
from tests.conftest import HERE, TINY

ONE = TINY.partition("  sparse-f32")[0].replace("epochs: 1,", "epochs: 4,")
TWO = ONE.replace("epochs: 4,", "epochs: 4, strategy: {name: mirrored, devices: DEVICES},")


def trained(folder, text):
    (folder / "devices").mkdir(parents=True)
    here = HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
    (folder / "devices" / "here.yaml").write_text(here)
    loaded = parse_pipeline(text, str(folder / "tiny.yaml"))
    return edgesparse.deploy(loaded, ["here"], benchmark=False, project=folder)


@pytest.mark.slow
@pytest.mark.full
def test_two_devices_train_as_one_does(tmp_path):
    """Gradients are summed over the replicas: the same batches give the same model, nearly."""
    accuracies = {}
    for name, text in (("one", ONE), ("two", TWO.replace("DEVICES", "[CPU:0, CPU:1]"))):
        (row,) = trained(tmp_path / name, text).rows
        assert row.status == "ok", row.error
        accuracies[name] = row.score.keras
    assert accuracies["one"] > 0.85
    assert accuracies["two"] == pytest.approx(accuracies["one"], abs=0.02)


def test_devices_that_are_not_there_are_an_error():
    from edgesparse.methods.training import strategy

    train = parse_pipeline(TWO.replace("DEVICES", "[GPU:7]")).spec.train
    with pytest.raises(UsageError, match="no device GPU:7; available: CPU:0"):
        strategy.scope(train)


@pytest.mark.slow
@pytest.mark.full
def test_devices_that_are_not_there_are_a_failed_rows_reason(tmp_path):
    (row,) = trained(tmp_path, TWO.replace("DEVICES", "[GPU:7]")).rows
    assert "no device GPU:7; available: CPU:0" in row.error


def test_a_device_is_named_as_tensorflow_does():
    with pytest.raises(SpecError):
        parse_pipeline(TWO.replace("DEVICES", "['/gpu:0']"))
