"""Which wheels a device gets."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from edgesparse.devices.setup import wheels
from edgesparse.devices.setup.runtimes import INSTALLER
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
        ({"python": "3.13.5", "glibc": "2.41"}, "use ai-edge-litert on this"),
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


def test_every_release_has_its_packages_and_digests_locked():
    lock = wheels.lock()
    for name, releases in wheels.RELEASES.items():
        for release in releases:
            for minor in release.minors:
                packages = lock["packages"][f"{name}=={release.version}"][f"3.{minor}"]
                assert f"{name}=={release.version}" in packages
                assert sum(package.startswith("numpy==") for package in packages) == 1
                assert all(lock["sha256"][package] for package in packages)
                # Both runtimes share an environment, and so its numpy.
                assert wheels._numpy(replace(BOOKWORM, python=f"3.{minor}.0")) in packages


def test_numpy_is_pinned_whatever_version_of_a_runtime_is_named():
    named = wheels.choose([Runtime(name="ai-edge-litert", version="1.2.0")], BOOKWORM)
    assert wheels.pins(named, BOOKWORM) == wheels.Pins(
        ("ai-edge-litert==1.2.0", "numpy==1.26.4"), complete=False
    )
    assert wheels.pins(chosen(), BOOKWORM).complete


def wheel(folder, package, content="print()"):
    """A wheel that pip takes, with another content than the index's."""
    name, version = package.replace("-", "_").split("==")
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/__init__.py", content)
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from, and no index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_changed_wheel_from_an_index_is_refused_by_name(tmp_path, index):
    for package in wheels.pins(chosen(), BOOKWORM).requirements:
        wheel(index, package)
    for _ in range(2):  # What was refused is not taken from the cache, either.
        with pytest.raises(DeviceError, match=r"device pi: \S+\.whl has sha256 .* not in the lock"):
            wheels.download(chosen(), BOOKWORM, "pi", tmp_path / "cache")


def test_a_locked_package_is_verified_beside_a_version_that_the_user_named(tmp_path, index):
    named = wheels.choose([Runtime(name="ai-edge-litert", version="1.2.0")], BOOKWORM)
    wheel(index, "ai-edge-litert==1.2.0")
    wheel(index, "numpy==1.26.4")
    with pytest.raises(DeviceError, match=r"numpy-1\.26\.4-py3-none-any\.whl has sha256"):
        wheels.download(named, BOOKWORM, "pi", tmp_path / "cache")


def test_wheels_in_the_cache_need_no_network_unless_changed(tmp_path, index, monkeypatch):
    choice = wheels.choose([Runtime(name="tflite-runtime")], BOOKWORM)
    for package in wheels.pins(choice, BOOKWORM).requirements:
        local = wheel(index, package)
        monkeypatch.setitem(wheels.lock()["sha256"], package, [file_digest(local)])
    cache = tmp_path / "cache"
    first = wheels.download(choice, BOOKWORM, "pi", cache)
    shutil.rmtree(index)
    assert wheels.download(choice, BOOKWORM, "pi", cache) == first
    first[0].write_bytes(b"other")
    with pytest.raises(DeviceError, match=rf"device pi: {first[0].name} has sha256 .*; remove "):
        wheels.download(choice, BOOKWORM, "pi", cache)
    # Nor does a record that was changed with it help.
    record = first[0].parent / "digests.json"
    digests = json.loads(record.read_text()) | {first[0].name: file_digest(first[0])}
    record.write_text(json.dumps(digests))
    with pytest.raises(DeviceError, match=rf"device pi: {first[0].name} has sha256"):
        wheels.download(choice, BOOKWORM, "pi", cache)
    record.write_text(json.dumps({"extra-1.0-py3-none-any.whl": "0"}))
    (record.parent / "extra-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"extra-1\.0-py3-none-any\.whl is not among the locked"):
        wheels.download(choice, BOOKWORM, "pi", cache)
    record.unlink()
    with pytest.raises(DeviceError, match=r"cannot download its wheels: ERROR"):
        wheels.download(choice, BOOKWORM, "pi", cache)


def test_a_device_installs_no_wheel_that_was_changed_on_its_way(tmp_path):
    local = wheel(tmp_path, "tflite-runtime==2.14.0")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({
        "venv": str(tmp_path / "venvs" / "0123456789abcdef"), "link": str(tmp_path / "venv"),
        "wheels": [[str(local), "0" * 64]], "modules": [], "lock": str(tmp_path / "lock"),
    }))  # fmt: skip
    done = subprocess.run(
        [sys.executable, INSTALLER, request], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{local} is damaged" in json.loads(done.stdout.splitlines()[-1])["error"]
    assert not (tmp_path / "venv").exists()
