"""The one connection: how it is refused, how it is made again, and that it never leaks."""

import os
import socket
import stat
import subprocess
import tempfile

import pytest

from edgesparse.devices.transport import ssh_master
from edgesparse.devices.transport.interface import ConnectionLost, DeviceError
from tests.conftest import TEMPORARY, our_ssh
from tests.tools.proxy import proxy
from tests.tools.sshd import free_port, make_key


def test_a_wrong_key_is_refused_with_the_command_that_helps(server, tmp_path):
    make_key(tmp_path / "other")
    with pytest.raises(DeviceError, match=r"every key was refused.*ssh-copy-id"):
        server.connect(identity_file=str(tmp_path / "other"))


def test_an_unknown_host_key_is_never_accepted(server, tmp_path):
    expected = tmp_path / "known_hosts"
    expected.touch()
    with pytest.raises(DeviceError, match="unknown host key"):
        server.connect(known_hosts=str(expected))
    assert expected.read_text() == ""


def test_a_configuration_that_accepts_every_key_does_not_count(server, tmp_path):
    expected, config = tmp_path / "known_hosts", tmp_path / "config"
    expected.touch()
    config.write_text("Host *\n  StrictHostKeyChecking no\n")
    with pytest.raises(DeviceError, match="unknown host key"):
        server.connect(known_hosts=str(expected), config=str(config))


def test_a_changed_host_key_is_refused_and_the_fix_fixes_it(server, tmp_path):
    make_key(tmp_path / "other")
    expected = tmp_path / "known_hosts"
    expected.write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'other.pub').read_text()}")
    with pytest.raises(DeviceError, match="its host key has changed") as refused:
        server.connect(known_hosts=str(expected))
    command = str(refused.value).split("remove the old key with: ")[1].split("; ")[0]
    assert command == f"ssh-keygen -R '[127.0.0.1]:{server.port}' -f {expected}"
    assert os.system(f"{command} >{tmp_path}/said 2>&1") == 0
    with pytest.raises(DeviceError, match="unknown host key"):
        server.connect(known_hosts=str(expected))


def test_a_refused_connection_fails_immediately(server):
    with pytest.raises(ConnectionLost, match="switch the device on"):
        server.connect(port=free_port())


def test_a_server_without_answers_times_out(server, tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectionLost, match=r"timed? ?out"),
    ):
        server.connect(port=silent.getsockname()[1], connect_timeout_seconds=0.5)


def test_the_connection_leaves_nothing_behind(server):
    board = server.connect()
    folder = board._master._folder.path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    board.close()
    assert not folder.exists()
    board.close()


def masters():
    """The ssh processes that hold a connection."""
    return [line for line in our_ssh().values() if " -M " in line]


@pytest.mark.slow
def test_a_command_that_dies_by_a_signal_is_no_broken_connection(server):
    """ssh ends with the same code; the connection stays the only one there is."""
    before = len(masters())
    board = server.connect()
    for _ in range(10):
        done = board.run(["sh", "-c", "echo said; kill -SEGV $$"])
        assert (done.returncode != 0, done.stdout) == (True, "said\n")
        with board.open(["sh", "-c", "kill -KILL $$"]) as channel, pytest.raises(EOFError):
            channel.read_line(30)
        board.reconnect()
    assert len(masters()) == before + 1
    board.close()
    assert len(masters()) == before


@pytest.mark.slow
def test_a_cut_connection_leaves_no_master(server):
    before = len(masters())
    board = server.connect()
    for _ in range(5):
        server.cut()
        assert board.run(["echo", "again"]).stdout == "again\n"
    assert len(masters()) == before + 1
    board.close()
    assert len(masters()) == before


@pytest.mark.slow
def test_a_connection_closed_while_keys_are_exchanged_is_tried_again(server):
    with proxy(server.port) as between:
        way = server.through(between.port)
        between.refuse = 2
        board = server.connect(**way)
        server.cut()
        between.refuse = 3
        assert board.run(["echo", "hello"]).stdout == "hello\n"
        assert between.refuse == 0
        board.close()


def test_a_server_that_always_closes_connections_is_an_error(server, monkeypatch):
    monkeypatch.setattr(ssh_master, "FIRST_SECONDS", 0.6)
    with proxy(server.port) as between:
        between.refuse = 1000
        with pytest.raises(ConnectionLost, match=r"(?i)connection closed|closed the connection"):
            server.connect(**server.through(between.port))
        assert between.connections == 2


def test_a_key_with_a_passphrase_says_what_it_needs(server, tmp_path):
    key = tmp_path / "locked key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-C", "test", "-f", str(key)],
        check=True,
    )
    with pytest.raises(DeviceError, match=r"has a passphrase and is not in an agent.*ssh-add"):
        server.connect(identity_file=str(key))


@pytest.mark.parametrize("name", ["with space", "100 %h", "x" * 100])
def test_paths_are_taken_as_they_are(server, monkeypatch, name):
    """Of the key, the known hosts and the folder for temporary files."""
    folder = TEMPORARY / name
    folder.mkdir()
    for file in ("key", "known_hosts"):
        (folder / file).write_bytes((server.folder / file).read_bytes())
    (folder / "key").chmod(0o600)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    board = server.connect(
        identity_file=str(folder / "key"), known_hosts=str(folder / "known_hosts")
    )
    assert board.run(["echo", "hello"]).stdout == "hello\n"
    board.close()
    assert sorted(os.listdir(folder)) == ["key", "known_hosts"]
