"""The chip on the device, the delegate that the agent loads, and the machines that compile."""

import subprocess
import sys
from dataclasses import replace

import pytest

from edgesparse.devices import edgetpu
from edgesparse.devices.agent.events import Check, Failed
from edgesparse.devices.agent.job import Entry, check_only
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.platform import probe
from edgesparse.spec.device import Device, EdgeTpu, Local
from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite.edgetpu import is_compiled
from tests.conftest import require
from tests.tools.edgetpu import VERSION, make_compiler, make_library
from tests.tools.sshd import ssh_server


@pytest.fixture
def here(tmp_path):
    return LocalTransport("coral", Local(python=None), str(tmp_path / "workdir"))


def plug_in(root, ids="18d1:9302", speed="5000", *, usable=True):
    """An Edge TPU on USB, as Linux shows it."""
    path = root / "sys/bus/usb/devices/2-1"
    path.mkdir(parents=True)
    vendor, product = ids.split(":")
    values = {
        "idVendor": vendor, "idProduct": product, "busnum": "2", "devnum": "9", "speed": speed
    }  # fmt: skip
    for name, value in values.items():
        (path / name).write_text(value + "\n")
    node = root / "dev/bus/usb/002"
    node.mkdir(parents=True)
    if usable:
        (node / "009").touch()


@pytest.mark.parametrize("ids", ["1a6e:089a", "18d1:9302"])
def test_an_accelerator_on_usb_is_seen(here, tmp_path, ids):
    plug_in(tmp_path / "root", ids, "480")
    platform = probe(here, str(tmp_path / "root"))
    assert (platform.tpu_bus, platform.tpu_usable) == ("usb", True)
    assert platform.tpu_mbit_per_second == 480
    assert edgetpu.tpu_problem("coral", platform) is None
    (note,) = edgetpu.connection_notes("coral", EdgeTpu(), platform)
    assert "480 Mbit/s (USB 2)" in note


def test_a_phone_of_the_same_vendor_is_no_edge_tpu(here, tmp_path):
    plug_in(tmp_path / "root", "18d1:4ee7")
    assert probe(here, str(tmp_path / "root")).tpu_bus is None


def test_a_chip_on_pcie_is_seen(here, tmp_path):
    (tmp_path / "root/dev").mkdir(parents=True)
    (tmp_path / "root/dev/apex_0").touch()
    platform = probe(here, str(tmp_path / "root"))
    assert (platform.tpu_bus, platform.tpu_mbit_per_second) == ("pcie", None)
    assert edgetpu.connection_notes("coral", EdgeTpu(), platform) == []


def test_each_reason_why_a_chip_cannot_be_used_has_its_own_message(here, tmp_path):
    nothing = probe(here, str(tmp_path))
    assert "no Edge TPU on its USB" in edgetpu.tpu_problem("coral", nothing)
    plug_in(tmp_path, usable=False)
    result = replace(probe(here, str(tmp_path)), user="pi", groups=("pi", "video"))
    assert "sudo usermod -aG plugdev pi" in edgetpu.tpu_problem("coral", result)
    member = replace(result, groups=("pi", "plugdev"))
    assert "udev rules" in edgetpu.tpu_problem("coral", member)
    with pytest.raises(DeviceError, match="plugdev"):
        edgetpu.require_tpu("coral", EdgeTpu(), result)
    edgetpu.require_tpu("coral", EdgeTpu(compiler="none"), nothing)


def load(transport, model, runtime, library, options):
    entry = Entry("m", model, runtime, {"library": str(library), "options": options}, 1)
    events = run_job(transport, check_only([entry], "load", 60.0))
    return next(event for event in events if isinstance(event, Check | Failed))


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_the_agent_loads_a_delegate_and_passes_its_options(here, tflite_files, tmp_path, runtime):
    if runtime == "tflite-runtime":
        require(sys.version_info < (3, 12), "tflite-runtime has wheels up to Python 3.11")
    library, trace = make_library(tmp_path / "lib"), tmp_path / "trace"
    options = {"device": "usb", "trace": str(trace)}
    event = load(here, tflite_files["int8"], runtime, library, options)
    assert isinstance(event, Check), event
    assert set(trace.read_text().splitlines()) == {"device=usb", f"trace={trace}"}


def test_a_missing_library_and_a_busy_chip_have_their_own_messages(here, tflite_files, tmp_path):
    model = tflite_files["int8"]
    missing = load(here, model, "ai-edge-litert", "libedgetpu-none.so.1", {})
    assert isinstance(missing, Failed)
    text = edgetpu.delegate_problem("coral", "libedgetpu-none.so.1", missing.error)
    assert "libedgetpu-none.so.1 is not installed; install it" in text
    library = make_library(tmp_path / "lib")
    busy = load(here, model, "ai-edge-litert", library, {"device": "usb:9"})
    assert isinstance(busy, Failed)
    text = edgetpu.delegate_problem("coral", "libedgetpu.so.1", busy.error)
    assert "cannot open the Edge TPU" in text
    assert edgetpu.delegate_problem("coral", "libedgetpu.so.1", "out of memory") is None


def compiles(tpu, tflite_files):
    expected = edgetpu.identify(tpu)
    assert expected["version"] == VERSION
    assert len(expected["sha256"]) == 64
    done = edgetpu.compile_model(tpu, tflite_files["int8"], "dense-int8")
    assert done.log.version == VERSION
    assert 0 < done.log.mapped < done.log.total
    assert is_compiled(done.content)


def test_a_compiler_on_this_machine(tflite_files, tmp_path):
    command = str(make_compiler(tmp_path / "bin"))
    compiles(EdgeTpu(compiler={"local": {"command": command}}), tflite_files)


@pytest.mark.slow
def test_a_compiler_behind_ssh(tflite_files, tmp_path):
    command = str(make_compiler(tmp_path / "bin"))
    with ssh_server(tmp_path / "sshd", XDG_CACHE_HOME=tmp_path) as server:
        values = server.spec().model_dump(exclude_none=True)
        compiles(EdgeTpu(compiler={"ssh": {**values, "command": command}}), tflite_files)


def test_a_compiler_in_a_container(tflite_files, tmp_path, monkeypatch):
    make_compiler(tmp_path / "bin")
    # Runs the command without a container, and writes down how it was called.
    engine = tmp_path / "bin" / "docker"
    engine.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called\nwhile [ "$1" != coral:16 ]; do shift; done\n'
        f'shift; PATH={tmp_path}/bin:$PATH exec "$@"\n'
    )
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    compiles(EdgeTpu(compiler={"container": {"image": "coral:16"}}), tflite_files)
    called = (tmp_path / "called").read_text()
    assert "run --rm" in called
    assert "--network=none" in called


def test_no_compiler_names_the_choices(tflite_files, tmp_path):
    tpu = EdgeTpu(compiler={"local": {"command": str(tmp_path / "edgetpu_compiler")}})
    assert edgetpu.identify(tpu) == {"version": None}
    with pytest.raises(EdgesparseError, match=r"ssh, container, precompiled or none"):
        edgetpu.compile_model(tpu, tflite_files["int8"], "dense-int8")


def test_a_model_with_no_operator_mapped_is_refused(tflite_files, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_EDGETPU_MAPS", "none")
    command = str(make_compiler(tmp_path / "bin"))
    tpu = EdgeTpu(compiler={"local": {"command": command}})
    with pytest.raises(EdgesparseError, match="no operator of dense-int8 runs on the Edge TPU: "):
        edgetpu.compile_model(tpu, tflite_files["int8"], "dense-int8")


def test_a_model_that_the_compiler_refuses_says_why(tflite_files, tmp_path):
    tpu = EdgeTpu(compiler={"local": {"command": str(make_compiler(tmp_path / "bin"))}})
    with pytest.raises(EdgesparseError, match="refuses dense: the model is not fully quantized"):
        edgetpu.compile_model(tpu, tflite_files["dense"], "dense")


def test_a_precompiled_file_is_bound_to_its_source(tflite_files, tmp_path):
    folder = tmp_path / "edgetpu"
    tpu = EdgeTpu(compiler={"precompiled": {"folder": str(folder)}})
    assert edgetpu.identify(tpu) == {"files": {}}
    with pytest.raises(EdgesparseError, match=r"missing; .*edgetpu_compiler -s") as request:
        edgetpu.compile_model(tpu, tflite_files["int8"], "dense-int8")
    (source,) = folder.glob("*.tflite")
    assert source.read_bytes() == tflite_files["int8"].read_bytes()
    # What the message says to type, typed.
    command = str(request.value).split("with the compiler: ")[1].split(";")[0]
    make_compiler(tmp_path / "bin")
    subprocess.run(
        command, shell=True, cwd=folder, check=True, capture_output=True,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
    )  # fmt: skip
    done = edgetpu.compile_model(tpu, tflite_files["int8"], "dense-int8")
    assert done.log.mapped
    assert len(edgetpu.identify(tpu)["files"]) == 1
    # The model changes: the old file is stale.
    changed = tmp_path / "changed.tflite"
    changed.write_bytes(tflite_files["int8"].read_bytes() + b"\0\0\0\0")
    with pytest.raises(EdgesparseError, match="is of another version of the model"):
        edgetpu.compile_model(tpu, changed, "dense-int8")


def test_the_device_file_says_what_the_agent_loads():
    common = {"name": "c", "connect": {"local": {}}, "runtimes": ["ai-edge-litert"]}
    device = Device(delegate="edgetpu", edgetpu={"options": {"device": "usb"}}, **common)
    expected = {"library": "libedgetpu.so.1", "options": {"device": "usb"}}
    assert (device.delegate_used, device.agent_delegate) == ("edgetpu", expected)
    without = Device(delegate="edgetpu", edgetpu={"compiler": "none"}, **common)
    assert (without.delegate_used, without.agent_delegate) == ("xnnpack", "xnnpack")
