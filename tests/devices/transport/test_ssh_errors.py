"""What ssh prints becomes one message that says what to type."""

import pytest

from edgesparse.devices.transport.interface import ConnectionLost, DeviceError
from edgesparse.devices.transport.ssh_errors import explain, login_command
from edgesparse.spec.base import Ssh

PI = Ssh(host="pi.local", user="pi")

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /home/me/.ssh/known_hosts:7
Host key for pi.local has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (CHANGED, DeviceError, "ssh-keygen -R pi.local -f /home/me/.ssh/known_hosts"),
        (
            "No ED25519 host key is known for pi.local and you have requested strict checking.\n"
            "Host key verification failed.",
            DeviceError,
            "unknown host key; compare it and accept it once with: ssh pi@pi.local",
        ),
        ("pi@pi.local: Permission denied (publickey).", DeviceError, "ssh-copy-id pi@pi.local"),
        ("ssh: Could not resolve hostname pi.local: x", DeviceError, "unknown host name"),
        (
            "muxclient: master hello exchange failed",
            ConnectionLost,
            "muxclient: master hello exchange failed",
        ),
        (
            "ssh: connect to host pi.local port 22: Connection refused",
            ConnectionLost,
            "switch the device on and enable its SSH server",
        ),
        (
            "ssh: connect to host pi.local port 22: Connection timed out",
            ConnectionLost,
            "check that the device is on and in this network",
        ),
        ("Bad configuration option: x", DeviceError, "ssh failed: Bad configuration option: x"),
        ("", ConnectionLost, "it closed the connection"),
    ],
)
def test_each_failure_has_its_own_words(said, kind, words):
    error = explain("pi", PI, said)
    assert type(error) is kind
    assert words in str(error)
    assert str(error).startswith("device pi (pi.local): ")
    assert "\n" not in str(error)


def test_the_command_to_type_has_the_device_files_settings():
    spec = Ssh(host="h", port=2222, identity_file="~/my key", known_hosts="~/known", config="c d")
    command = login_command(spec)
    assert "-p 2222" in command
    assert "~/known" in command
    assert "'c d'" in command
