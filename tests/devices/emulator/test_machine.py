"""The emulator without booting it; tests/e2e/test_emulator.py boots it."""

import json
import os
import subprocess
import sys

import pytest

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator import machine as emulator
from edgesparse.devices.emulator.image import EmulatorError
from edgesparse.devices.setup.connection import first_use
from edgesparse.spec.device import Emulator
from edgesparse.spec.reading.load import load_device
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgesparse" / "emulator"


def test_missing_tools_are_named_with_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulatorError, match=r"sudo apt-get install .*qemu-system-arm"):
        image.check_tools()
    with pytest.raises(EmulatorError, match="qemu-system-arm"):
        emulator.up("pi", Emulator(), tmp_path)


def test_the_clock_is_the_device_files():
    def options(**spec):
        built = image.Path("/images/a,b")
        return emulator._qemu("pi", Emulator(**spec), built, 2222, image.Path("/log"), False)

    counting = options()
    assert counting[counting.index("-icount") + 1] == "shift=1,sleep=on"
    assert counting[counting.index("-cpu") + 1] == "cortex-a76"
    assert "-icount" not in options(clock="wall", cpu="cortex-a72")
    assert any("file=/images/a,,b/disk.img" in option for option in counting)
    assert any("restrict=on" in option for option in counting)


def test_an_image_is_built_once_and_whole(home):
    with emulator.building("a") as folder:
        assert folder is not None
        (folder / "disk.img").write_text("disk")
    with emulator.building("a") as again:
        assert again is None
    with emulator.building("b") as other:
        assert other is not None
    assert len(emulator.images()) == 2


def test_old_images_are_removed(home):
    for name in "ab":
        with emulator.building(name) as folder:
            assert folder is not None
    old = emulator.image_folder("a")
    os.utime(old, (0, 0))
    with emulator.building("c"):
        pass
    assert not old.exists()
    assert emulator.image_folder("b").exists()


def test_a_build_that_fails_leaves_nothing(home):
    def broken():
        with emulator.building("a") as folder:
            (folder / "disk.img").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert emulator.images() == []
    with emulator.building("a") as folder:
        assert list(folder.iterdir()) == []


def test_a_machine_that_died_is_not_up(home):
    (home / "machines").mkdir(parents=True)
    state = home / "machines" / "pi.json"
    state.write_text(json.dumps({"name": "pi", "pid": os.getpid(), "port": 1, "spec": {}}))
    # That process is there, but is no machine of that name.
    assert emulator.running("pi") is None
    assert not state.exists()
    assert emulator.machines() == []
    assert emulator.down("pi") is False
    state.write_text("{")
    assert emulator.running("pi") is None


@pytest.mark.slow
def test_a_boot_that_stops_fails_and_one_that_goes_on_does_not(tmp_path, monkeypatch):
    """No server ever listens: what ends the wait is the console, not the time since the start."""
    monkeypatch.setattr(emulator, "SILENT_SECONDS", 5.0)
    log = tmp_path / "pi.log"
    talks = "for i in 1 2 3; do echo edgesparse: step $i; sleep 0.4; done; exec sleep 60"
    steps = []
    with log.open("wb") as file, subprocess.Popen(["sh", "-c", talks], stdout=file) as process:
        try:
            with pytest.raises(EmulatorError, match=r"the boot stopped.*last: edgesparse: step 3"):
                emulator._await_ssh("pi", process, 1, log, lambda *step: steps.append(step))
        finally:
            process.kill()
    assert list(dict.fromkeys(steps))[-3:] == [(1, "step 1"), (2, "step 2"), (3, "step 3")]


def test_a_boot_without_output_can_be_stopped(tmp_path):
    """As by Ctrl-C, where a thread waits for the board."""
    steps = []

    def show(*step):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with pytest.raises(KeyboardInterrupt):
                emulator._await_ssh("pi", process, 1, tmp_path / "pi.log", show)
        finally:
            process.kill()
    assert steps == [(0, "booting")] * 3


def test_a_machine_that_ends_says_why(tmp_path):
    log = tmp_path / "pi.log"
    log.with_suffix(".qemu.log").write_text("no such CPU")
    with subprocess.Popen(["true"]) as process:
        process.wait()
        with pytest.raises(EmulatorError, match="QEMU failed to start: no such CPU"):
            emulator._await_ssh("pi", process, 1, log, emulator.show_nothing)


def test_computing_time_counts_the_children():
    busy = f"{sys.executable} -c 'while True: pass' & wait"
    with subprocess.Popen(["sh", "-c", busy], start_new_session=True) as process:
        while emulator._cpu_seconds(process.pid)[0] < 0.1:
            assert process.poll() is None
        assert emulator._cpu_seconds(process.pid)[1] > 0
        os.killpg(process.pid, 9)
    assert emulator._cpu_seconds(process.pid) == (0, 0)


def test_minutes_are_announced_before_an_image_is_built(tmp_path, monkeypatch):
    device = load_device(ROOT / "devices" / "pi5-emulated.yaml").spec
    assert "built first, once: about 3 minutes" in first_use(device)
    assert first_use(load_device(ROOT / "devices" / "local.yaml").spec) is None
    folders = {"": tmp_path}  # The disk without runtimes.
    monkeypatch.setattr(emulator, "image_folder", lambda setup: folders.get(setup, tmp_path / "x"))
    assert "from the disk of another device" in first_use(device)
    monkeypatch.setattr(emulator, "image_folder", lambda setup: tmp_path)
    assert first_use(device) is None
