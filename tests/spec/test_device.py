"""What a device file may say."""

import pytest

from edgesparse.spec.device import Group
from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.reading.load import find_devices, load_device_or_group, parse_device

SSH = "name: pi\nconnect: {ssh: {host: pi.local}}\nruntimes: [ai-edge-litert]\n"


def refused(text):
    with pytest.raises(SpecError) as error:
        parse_device(text)
    return str(error.value)


def test_defaults_of_a_board():
    device = parse_device(SSH).spec
    assert device.builds_venv
    assert (device.clock, device.emulated, device.tpu) == ("wall", False, None)
    assert (device.agent_delegate, device.workdir) == ("xnnpack", "~/.cache/edgesparse")
    assert (device.delegate, device.loads_edgesparse) == ("auto", True)


@pytest.mark.parametrize(
    ("delegate", "loads", "others"),
    [("edgesparse", True, "xnnpack"), ("xnnpack", False, "xnnpack"), ("none", False, "none")],
)
def test_delegates(delegate, loads, others):
    device = parse_device(f"{SSH}delegate: {delegate}\n").spec
    assert (device.loads_edgesparse, device.agent_delegate) == (loads, others)


@pytest.mark.parametrize("connect", ["{}", "{local: {}, ssh: {host: a}}", "{local: null}"])
def test_there_is_exactly_one_way_to_a_device(connect):
    said = refused(f"name: a\nconnect: {connect}\nruntimes: [ai-edge-litert]\n")
    assert "set exactly one of local, ssh, emulator and plugin" in said
    assert ":2:" in said


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=x", "a b", "a;reboot", "$(x)", "a\nb", "", "user@host"]
)
def test_a_host_cannot_be_an_option_or_a_command(host):
    assert "host" in refused(SSH.replace("pi.local", repr(host)))


@pytest.mark.parametrize("user", ["-l", "a b", "$(x)"])
def test_neither_can_a_user_or_a_python(user):
    assert "user" in refused(SSH.replace("pi.local", f"pi.local, user: {user!r}"))
    assert "python" in refused(SSH.replace("pi.local", f"pi.local, python: {user!r}"))


@pytest.mark.parametrize("name", ["../x", "A", "a b", "", "-x", "a/b"])
def test_a_name_is_safe_as_a_file(name):
    assert "name" in refused(SSH.replace("name: pi", f"name: {name!r}"))


def test_the_environment_fills_in_what_is_asked_for(monkeypatch):
    text = SSH.replace("pi.local", "'${EDGESPARSE_TEST_HOST:-pi.local}'")
    assert parse_device(text).spec.connect.ssh.host == "pi.local"
    monkeypatch.setenv("EDGESPARSE_TEST_HOST", "other")
    assert parse_device(text).spec.connect.ssh.host == "other"
    monkeypatch.setenv("EDGESPARSE_TEST_HOST", "-oProxyCommand=x")
    assert "host" in refused(text)


def test_an_emulator_has_its_own_clock():
    text = "name: e\nconnect: {emulator: {clock: wall}}\nruntimes: [ai-edge-litert]\n"
    assert parse_device(text).spec.clock == "wall"
    assert parse_device(text.replace("clock: wall", "")).spec.clock == "instructions"


CORAL = SSH + "delegate: edgetpu\n"


@pytest.mark.parametrize("compiler", ["local", "precompiled", "none"])
def test_a_compiler_may_be_just_named(compiler):
    tpu = parse_device(f"{CORAL}edgetpu: {{compiler: {compiler}}}\n").spec.tpu
    assert getattr(tpu.compiler, compiler) is not None


def test_an_edge_tpu_is_compiled_for_here_unless_said_otherwise():
    assert parse_device(CORAL).spec.tpu.compiler.local is not None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("edgetpu: {compiler: {}}", "set exactly one of local, ssh, container, precompiled and"),
        ("edgetpu: {compiler: cloud}", "cloud"),
        ("edgetpu: {compiler: container}", "image"),
        ("edgetpu: {library: 'lib edgetpu'}", "library"),
        ("edgetpu: {options: {'a b': c}}", "'a b': empty, or with"),
    ],
)
def test_a_mistake_about_the_edge_tpu_is_told(given, words):
    assert words in refused(f"{CORAL}{given}\n")


def test_settings_for_a_chip_that_is_not_used_are_a_mistake():
    assert "'edgetpu' requires 'delegate: edgetpu'" in refused(SSH + "edgetpu: {compiler: none}\n")


def test_a_file_with_devices_is_a_group(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("name: lab\ndevices: [pi, coral]\n")
    assert load_device_or_group(path).spec == Group(name="lab", devices=["pi", "coral"])
    path.write_text("name: lab\ndevices: []\n")
    with pytest.raises(SpecError, match="devices"):
        load_device_or_group(path)


@pytest.mark.parametrize(
    "text",
    [
        "name: ${X}",
        "connect: {ssh: {host: '${X}'}}",
        "connect: {ssh: {host: pi, port: '${X}'}}",
        "delegate: ${X}",
        "runtimes: ['${X}']",
        "threads: ${X}",
        "keep_releases: ${X}",
        "edgetpu: {compiler: '${X}'}",
    ],
)
def test_a_mistake_names_the_variable_and_not_its_value(text, monkeypatch):
    secret = "-hunter2 is my password " + "x" * 100
    monkeypatch.setenv("X", secret)
    base = {"name": "name: d", "connect": "connect: {local: {}}", "runtimes": "runtimes: [a]"}
    key = text.partition(":")[0]
    lines = [text, *(line for name, line in base.items() if name != key)]
    with pytest.raises(SpecError) as error:
        parse_device("\n".join(lines))
    assert "hunter2" not in str(error.value)
    assert "${X}" in str(error.value)


@pytest.mark.parametrize(
    ("address", "name", "user", "host", "port"),
    [
        ("pi@raspberrypi.local", "raspberrypi", "pi", "raspberrypi.local", None),
        ("pi@10.0.0.7:2222", "10.0.0.7", "pi", "10.0.0.7", 2222),
        ("me@[fe80::1]:22", "fe80--1", "me", "fe80::1", 22),
    ],
)
def test_an_address_is_a_device(address, name, user, host, port, tmp_path):
    (device,) = find_devices(address, tmp_path)
    ssh = device.connect.ssh
    assert (device.name, ssh.user, ssh.host, ssh.port) == (name, user, host, port)
    assert device.option == address
    assert [runtime.name for runtime in device.runtimes] == ["ai-edge-litert", "tflite-runtime"]


@pytest.mark.parametrize("address", ["pi@", "@host", "pi@a b", "pi@-x", "pi@host:70000", "-o@host"])
def test_an_invalid_address_is_an_error(address, tmp_path):
    with pytest.raises(UsageError, match=r"invalid address .*; write USER@HOST or USER@HOST:PORT"):
        find_devices(address, tmp_path)
