"""The emulator without booting it; tests/e2e/test_emulator.py boots it."""

import json
import os

import pytest

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator import machine as emulator
from edgesparse.devices.emulator.image import EmulatorError
from edgesparse.spec.device import Emulator


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
