"""Several devices at once."""

import os
import threading

import pytest

from edgesparse.commands.fleet import parallel as fleet
from edgesparse.devices.transport.interface import upload
from edgesparse.graph import events
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.reading.load import parse_device
from edgesparse.spec.safe.files import file_digest


def local(name, workdir):
    text = f"name: {name}\nconnect: {{local: {{}}}}\nworkdir: {workdir}\nruntimes: [ai-edge-litert]"
    return parse_device(text).spec


def test_all_items_are_worked_on_at_the_same_time():
    together = threading.Barrier(20, timeout=60)
    fleet.for_each(lambda _: together.wait(), list(range(20)), threading.Event())


def test_one_that_fails_stops_the_others_and_is_raised():
    stop = threading.Event()

    def work(item):
        if item == 0:
            raise EdgesparseError("broke")
        assert stop.wait(60)

    with pytest.raises(EdgesparseError, match="broke"):
        fleet.for_each(work, [0, 1, 2], stop)


def test_dead_devices_stand_beside_live_ones(tmp_path):
    (tmp_path / "file").touch()
    said = []
    devices = [local("dead", tmp_path / "file" / "x"), local("live", tmp_path / "work")]
    connections = fleet.Connections()
    with connections.use(
        devices, tmp_path, events.thread_safe(said.append), threading.Event()
    ) as connected:
        assert [target.device.name for target in connected.targets] == ["live"]
        ((dead, why),) = connected.failed
    connections.close()
    assert (dead.name, "cannot write to" in why) == ("dead", True)
    assert [event.label for event in said if isinstance(event, events.StageFailed)] == [
        "set up dead"
    ]


def test_setting_up_ends_where_the_run_is_stopped(tmp_path, monkeypatch):
    stop = threading.Event()

    def boots(device, progress, *_):
        for _ in range(3):
            progress(0.9, "booting")
        stop.set()
        progress(0.9, "booting")

    monkeypatch.setattr(fleet, "open_target", boots)
    shown = []
    with (
        pytest.raises(EdgesparseError, match="device pi: stopped"),
        fleet.Connections().use([local("pi", tmp_path)], tmp_path, shown.append, stop),
    ):
        pass
    assert [event.text for event in shown if isinstance(event, events.StageProgress)] == ["booting"]


def test_when_all_are_dead_every_reason_is_told(tmp_path):
    (tmp_path / "file").touch()
    devices = [local(name, tmp_path / "file" / name) for name in ("a", "b")]
    with (
        pytest.raises(EdgesparseError, match=r"(?s)no device can be used.*device a: .*device b: "),
        fleet.Connections().use(devices, tmp_path, events.null_listener, threading.Event()),
    ):
        pass


def test_a_device_stays_connected_until_it_changes_or_goes_away(tmp_path):
    connections, stop = fleet.Connections(), threading.Event()

    def connected(device):
        with connections.use([device], tmp_path, events.null_listener, stop) as ready:
            assert not ready.failed
            return ready.targets[0]

    device = local("live", tmp_path / "work")
    first = connected(device)
    assert connected(device) is first
    changed = connected(local("live", tmp_path / "other"))
    assert changed is not first
    assert changed.transport.workdir == str(tmp_path / "other")
    # One that no longer answers is connected anew.
    changed.transport.run = lambda *_, **__: (_ for _ in ()).throw(EdgesparseError("gone"))
    assert connected(changed.device) is not changed
    connections.close()


def test_files_of_a_killed_process_are_removed(tmp_path):
    """Also those of a check whose result is stored: no later run has them to copy."""
    device, runs = local("live", tmp_path / "work"), tmp_path / "project" / "runs"
    model = tmp_path / "model.tflite"
    model.write_bytes(b"a model")

    def used():
        with fleet.Connections().use(
            [device], runs, events.null_listener, threading.Event()
        ) as ready:
            transport = ready.targets[0].transport
            yield transport
            target = f"{transport.workdir}/files/{file_digest(model)}.tflite"
            transport.put_files([upload(model, target)])
            yield transport

    if not (child := os.fork()):
        block = used()
        next(block)
        next(block)
        os._exit(0)  # Nothing is cleaned up.
    os.waitpid(child, 0)
    files = tmp_path / "work" / "files"
    assert len(list(files.iterdir())) == 1
    block = used()
    next(block)
    assert not list(files.iterdir())
    list(block)
    assert not list(files.iterdir())
    assert not list((tmp_path / "project" / "leftovers" / "live").iterdir())


def test_minutes_of_set_up_are_announced_before_they_begin(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = "name: pi\nconnect: {emulator: {}}\nruntimes: [ai-edge-litert]"
    seen = []
    with fleet.set_up_progress(parse_device(text).spec, seen.append) as progress:
        progress(0.1, "disk")
    assert isinstance(seen[0], events.Note)
    assert "pi: its disk image is built first" in seen[0].text
    assert isinstance(seen[1], events.StageStarted)
