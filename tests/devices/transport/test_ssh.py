"""The transport over SSH, against a real OpenSSH server."""

import getpass
import shutil
from pathlib import Path

import pytest

from edgesparse.devices.transport.interface import ConnectionLost, DeviceError, upload
from tests.conftest import require
from tests.devices.ondevice.test_detached import await_end
from tests.tools.sshd import ssh_server


def test_a_command_gets_its_arguments_and_gives_its_output(board):
    done = board.run(["sh", "-c", 'printf "%s\\n" "$@"; echo err >&2; exit 7', "sh", "a b", "$(x)"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "a b\n$(x)\n", "err\n")


@pytest.mark.slow
def test_a_hanging_command_times_out_on_both_sides(board, tmp_path):
    """It says who it is, and then sleeps."""
    argv = ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"]
    with pytest.raises(ConnectionLost, match=r"sh did not finish within 1 s"):
        board.run(argv, timeout_seconds=1)
    await_end([int((tmp_path / "pid").read_text())])


def test_a_channel_talks_both_ways(board):
    with board.open(["sh", "-c", 'read x; echo "got $x"']) as channel:
        channel.send("words\n")
        assert channel.read_line(30) == "got words"


def test_a_file_comes_back(board, big, tmp_path):
    board.get_file(str(big), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    with pytest.raises(DeviceError, match="No such file"):
        board.get_file("/no/such/file", tmp_path / "none")
    with pytest.raises(DeviceError, match=r"is larger than the limit of 1 MB"):
        board.get_file(str(big), tmp_path / "none", max_bytes=1_000_000)
    with pytest.raises(DeviceError, match=r"is larger than the limit of 1 MB"):
        board.get_file("/dev/zero", tmp_path / "none", max_bytes=1_000_000)
    assert not list(tmp_path.glob("none*"))


def test_only_folders_below_workdir_are_removed(board):
    for path in ("/", board.workdir, f"{board.workdir}/../x", "/tmp"):
        with pytest.raises(ValueError, match="not below"):
            board.remove_folder(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fish", "noisy bash"])
def test_any_login_shell_will_do(tmp_path, big, kind):
    """Through ForceCommand, which runs what the client asked for as a login shell does."""
    home = tmp_path / "elsewhere" / "home of mine"
    home.mkdir(parents=True)
    if kind == "fish":
        require(shutil.which("fish") is not None, "the shell fish")
        run = 'exec fish -c "$SSH_ORIGINAL_COMMAND"'
    else:
        (home / ".bashrc").write_text("echo hello; echo 'edgesparse-1234'; echo warning >&2\n")
        run = f'. "{home}/.bashrc"; exec bash -c "$SSH_ORIGINAL_COMMAND"'
    wrapper = tmp_path / "login"
    wrapper.write_text(f'#!/bin/sh\nexport HOME="{home}"\ncd\n{run}\n')
    wrapper.chmod(0o755)
    with ssh_server(tmp_path / "sshd", [f"ForceCommand {wrapper}"]) as server:
        board = server.connect("~/work dir")
        assert board.workdir == f"{home}/work dir"
        target = f"{board.workdir}/it's here"
        assert board.put_files([upload(big, target)]) == big.stat().st_size
        assert board.put_files([upload(big, target)]) == 0
        assert Path(target).read_bytes() == big.read_bytes()
        assert board.run(["echo", "own"]).stdout == "own\n"
        board.close()


def test_a_login_shell_that_runs_nothing_is_an_error(tmp_path):
    with (
        ssh_server(tmp_path / "sshd", ["ForceCommand echo no shell for you"]) as server,
        pytest.raises(DeviceError, match=r"its login shell did not run the command.*echo hello"),
    ):
        server.connect()


def test_the_users_own_configuration_counts(server, tmp_path):
    """An alias with its port, user and key, reached through a jump host."""
    config = tmp_path / "config"
    config.write_text(
        f"Host board hop\n  HostName 127.0.0.1\n  Port {server.port}\n"
        f"  User {getpass.getuser()}\n  IdentityFile {server.folder}/key\n"
        f"  UserKnownHostsFile {server.folder}/known_hosts\n"
        # For both, the hop's own connection included; it would be asked otherwise.
        "  StrictHostKeyChecking yes\n"
        "Host board\n  ProxyJump hop\n"
    )
    plain = {"host": "board", "port": None, "user": None, "identity_file": None}
    board = server.connect(config=str(config), known_hosts=None, **plain)
    assert board.run(["echo", "hello"]).stdout == "hello\n"
    board.close()


def test_an_address_of_ipv6(tmp_path):
    with ssh_server(tmp_path / "six", ["ListenAddress ::1"]) as server:
        expected = server.folder / "known_hosts"
        expected.write_text(expected.read_text().replace("[127.0.0.1]", "[::1]"))
        board = server.connect(host="::1")
        assert board.run(["echo", "hello"]).stdout == "hello\n"
        board.close()


def test_a_key_file_that_is_missing_is_named(server):
    with pytest.raises(DeviceError, match="~/no-key does not exist on this machine; correct"):
        server.connect(identity_file="~/no-key").run(["true"])
