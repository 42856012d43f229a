"""Several devices at once."""

import threading

import pytest

from edgesparse.graph import progress as told
from edgesparse.runs.fleet import at_once as fleet
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.reading.load import parse_device


def local(name, workdir):
    text = f"name: {name}\nconnect: {{local: {{}}}}\nworkdir: {workdir}\nruntimes: [ai-edge-litert]"
    return parse_device(text).spec


def test_all_items_are_worked_on_at_the_same_time():
    together = threading.Barrier(20, timeout=60)
    fleet.at_once(lambda _: together.wait(), list(range(20)), threading.Event())


def test_one_that_fails_stops_the_others_and_is_raised():
    stop = threading.Event()

    def work(item):
        if item == 0:
            raise EdgesparseError("broke")
        assert stop.wait(60)

    with pytest.raises(EdgesparseError, match="broke"):
        fleet.at_once(work, [0, 1, 2], stop)


def test_dead_devices_stand_beside_live_ones(tmp_path):
    (tmp_path / "file").touch()
    said = []
    devices = [local("dead", tmp_path / "file" / "x"), local("live", tmp_path / "work")]
    with fleet.opened(devices, tmp_path, told.locked(said.append), threading.Event()) as opened:
        assert [target.device.name for target in opened.targets] == ["live"]
        ((dead, why),) = opened.dead
    assert (dead.name, "cannot write to" in why) == ("dead", True)
    assert [event.label for event in said if isinstance(event, told.StageFailed)] == ["set up dead"]


def test_when_all_are_dead_every_reason_is_told(tmp_path):
    (tmp_path / "file").touch()
    devices = [local(name, tmp_path / "file" / name) for name in ("a", "b")]
    with (
        pytest.raises(EdgesparseError, match=r"(?s)no device can be used.*device a: .*device b: "),
        fleet.opened(devices, tmp_path, lambda _: None, threading.Event()),
    ):
        pass
