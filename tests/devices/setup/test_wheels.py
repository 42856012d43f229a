"""Which wheels a device gets."""

import json
from dataclasses import replace

import pytest

from edgesparse.devices.setup import wheels
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.devices.transport.platform import Platform
from edgesparse.spec.device import Runtime
from edgesparse.spec.safe.files import file_digest

BOOKWORM = Platform(
    machine="aarch64", kernel="Linux 6.6", os="Debian 12", user="pi", groups=(), python="3.11.2",
    python_problem="", abi="", implementation="CPython", has_venv=True, glibc="2.36",
    memory_bytes=None, available_bytes=None, free_bytes=None, workdir_error="", noexec=False,
    tpu_bus=None, tpu_usable=False, tpu_mbit_per_second=None,
)  # fmt: skip
BOTH = [Runtime(name="tflite-runtime"), Runtime(name="ai-edge-litert")]


def chosen(**changes):
    return wheels.choose(BOTH, replace(BOOKWORM, **changes))


@pytest.mark.parametrize(
    ("changes", "tflite", "litert"),
    [
        ({}, "2.14.0", "2.1.6"),  # Raspberry Pi OS Bookworm
        ({"python": "3.13.5", "glibc": "2.41"}, None, "2.1.6"),  # Trixie
        ({"python": "3.9.2", "glibc": "2.31"}, "2.13.0", "1.4.0"),  # Bullseye
        ({"python": "3.7.3", "glibc": "2.24"}, "2.11.0", None),  # Mendel
        ({"machine": "armv7l"}, "2.14.0", None),  # A 32-bit system
    ],
)
def test_every_system_gets_the_newest_that_runs_there(changes, tflite, litert):
    choice = chosen(**changes)
    assert choice.versions.get("tflite-runtime") == tflite
    assert choice.versions.get("ai-edge-litert") == litert
    assert set(choice.refused) == {
        name for name, version in (("tflite-runtime", tflite), ("ai-edge-litert", litert))
        if version is None
    }  # fmt: skip


def test_a_version_that_the_device_file_names_is_taken():
    choice = wheels.choose([Runtime(name="ai-edge-litert", version="1.4.0")], BOOKWORM)
    assert choice.requirements == ["ai-edge-litert==1.4.0"]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"python": "3.13.5", "glibc": "2.41"}, "use ai-edge-litert there"),
        ({"machine": "riscv64"}, "install a 64-bit system"),
        ({"python": "3.6.9"}, "install a newer system"),
    ],
)
def test_a_refusal_says_what_to_do(changes, hint):
    assert hint in chosen(**changes).refused["tflite-runtime"]


def test_a_set_has_another_name_for_each_platform():
    names = {
        wheels.wheel_set(chosen(**changes), replace(BOOKWORM, **changes))
        for changes in ({}, {"python": "3.10.1"}, {"machine": "x86_64"}, {"glibc": "2.34"})
    }
    assert len(names) == 4


def test_wheels_in_the_cache_need_no_network_unless_damaged(tmp_path, monkeypatch):
    choice = chosen()
    folder = tmp_path / wheels.wheel_set(choice, BOOKWORM)
    folder.mkdir()
    (folder / "a.whl").write_bytes(b"wheel")
    (folder / "digests.json").write_text(json.dumps({"a.whl": file_digest(folder / "a.whl")}))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert wheels.download(choice, BOOKWORM, "pi", tmp_path) == [folder / "a.whl"]
    (folder / "a.whl").write_bytes(b"other")
    with pytest.raises(
        DeviceError, match=r"device pi: its wheels cannot be downloaded here: ERROR"
    ):
        wheels.download(choice, BOOKWORM, "pi", tmp_path)
