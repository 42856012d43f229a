"""The transport over SSH, against a real OpenSSH server."""

import getpass
import hashlib
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from edgesparse.devices.transport import ssh
from edgesparse.devices.transport.interface import ConnectionLost, DeviceError, upload
from tests.conftest import require
from tests.devices.ondevice.test_detached import await_end
from tests.proxy import proxy
from tests.sshd import free_port, make_key, ssh_server


@pytest.fixture
def big(tmp_path):
    """A file of 3 MB that does not compress."""
    path = tmp_path / "big.tflite"
    path.write_bytes(os.urandom(3_000_000))
    return path


def place(board, source):
    return f"{board.workdir}/files/{hashlib.sha256(source.read_bytes()).hexdigest()}"


def test_a_command_gets_its_arguments_and_gives_its_output(board):
    done = board.run(["sh", "-c", 'printf "%s\\n" "$@"; echo err >&2; exit 7', "sh", "a b", "$(x)"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "a b\n$(x)\n", "err\n")


def test_a_command_that_hangs_is_given_up_on_both_sides(board, tmp_path):
    """It says who it is, and then sleeps."""
    argv = ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"]
    with pytest.raises(ConnectionLost, match=r"sh gave no answer in 1 s"):
        board.run(argv, timeout_seconds=1)
    await_end([int((tmp_path / "pid").read_text())])


def test_a_channel_talks_both_ways(board):
    with board.open(["sh", "-c", 'read x; echo "got $x"']) as channel:
        channel.send("words\n")
        assert channel.read_line(30) == "got words"


def test_files_are_copied_once(board, big):
    target = place(board, big)
    shares = []
    sent = board.put_files([upload(big, target)], lambda share, _: shares.append(share))
    assert sent == big.stat().st_size
    assert Path(target).read_bytes() == big.read_bytes()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert board.put_files([upload(big, target)]) == 0
    # What is there but differs is replaced.
    Path(target).write_bytes(b"other")
    assert board.put_files([upload(big, target)]) == sent


def test_a_file_comes_back(board, big, tmp_path):
    board.get_file(str(big), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    with pytest.raises(DeviceError, match="No such file"):
        board.get_file("/no/such/file", tmp_path / "none")
    assert not list(tmp_path.glob("none*"))


def test_only_folders_below_workdir_are_removed(board):
    for path in ("/", board.workdir, f"{board.workdir}/../x", "/tmp"):
        with pytest.raises(ValueError, match="not below"):
            board.remove_folder(path)


def test_an_upload_that_is_cut_goes_on_where_it_ended(server, big):
    with proxy(server.port, cut_after_bytes=1_000_000) as between:
        known = (server.folder / "known_hosts").read_text()
        own = server.folder / "known_hosts_proxy"
        own.write_text(known.replace(str(server.port), str(between.port)))
        board = server.connect(port=between.port, known_hosts=str(own))
        target = place(board, big)
        sent = board.put_files([upload(big, target)])
        board.close()
    assert between.cuts == 1
    assert Path(target).read_bytes() == big.read_bytes()
    # The part that had arrived was not sent again; what was on its way is lost.
    assert sent < 2 * big.stat().st_size
    assert sum(between.sent) < 1.7 * big.stat().st_size
    assert not list(Path(target).parent.glob("*.part"))


def test_a_connection_that_always_breaks_ends_in_one_message(server, big, monkeypatch):
    monkeypatch.setattr(ssh, "UPLOAD_TRIES", 2)
    with proxy(server.port, cut_after_bytes=30_000, max_cuts=1000) as between:
        own = server.folder / "known_hosts_broken"
        known = (server.folder / "known_hosts").read_text()
        own.write_text(known.replace(str(server.port), str(between.port)))
        board = server.connect(port=between.port, known_hosts=str(own))
        target = f"{board.workdir}/never"
        with pytest.raises(ConnectionLost, match="broke 2 times"):
            board.put_files([upload(big, target)])
        board.close()
    assert not Path(target).exists()


def test_a_damaged_part_is_thrown_away_and_sent_again(board, big):
    target = f"{board.workdir}/damaged"
    file = upload(big, target)
    Path(board.workdir).mkdir(exist_ok=True)
    Path(f"{target}.{file.sha256}.part").write_bytes(b"x" * 1_000_000)
    board.put_files([file])
    assert Path(target).read_bytes() == big.read_bytes()


def test_what_cannot_be_written_is_one_message(board, big, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match=r"cannot write .*choose another workdir"):
        board.put_files([upload(big, f"{tmp_path}/file/below/x")])


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


def test_a_login_shell_that_runs_nothing_is_told(tmp_path):
    with (
        ssh_server(tmp_path / "sshd", ["ForceCommand echo no shell for you"]) as server,
        pytest.raises(DeviceError, match=r"its login shell ran no command.*echo hello"),
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


def test_a_wrong_key_is_refused_with_the_command_that_helps(server, tmp_path):
    make_key(tmp_path / "other")
    with pytest.raises(DeviceError, match=r"refused every key.*ssh-copy-id"):
        server.connect(identity_file=str(tmp_path / "other"))


def test_an_unknown_host_key_is_never_accepted(server, tmp_path):
    known = tmp_path / "known_hosts"
    known.touch()
    with pytest.raises(DeviceError, match="its host key is not known"):
        server.connect(known_hosts=str(known))
    assert known.read_text() == ""


def test_a_configuration_that_accepts_every_key_does_not_count(server, tmp_path):
    known, config = tmp_path / "known_hosts", tmp_path / "config"
    known.touch()
    config.write_text("Host *\n  StrictHostKeyChecking no\n")
    with pytest.raises(DeviceError, match="its host key is not known"):
        server.connect(known_hosts=str(known), config=str(config))


def test_a_changed_host_key_is_refused_and_the_fix_fixes_it(server, tmp_path):
    make_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'other.pub').read_text()}")
    with pytest.raises(DeviceError, match="its host key has changed") as refused:
        server.connect(known_hosts=str(known))
    command = str(refused.value).split("forget the old key with: ")[1].split("; ")[0]
    assert command == f"ssh-keygen -R '[127.0.0.1]:{server.port}' -f {known}"
    assert os.system(f"{command} >{tmp_path}/said 2>&1") == 0
    with pytest.raises(DeviceError, match="its host key is not known"):
        server.connect(known_hosts=str(known))


def test_nobody_there_is_told_at_once(server):
    with pytest.raises(ConnectionLost, match="is the device on"):
        server.connect(port=free_port())


def test_a_server_that_never_answers_is_given_up(server, tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectionLost, match=r"timed? ?out"),
    ):
        server.connect(port=silent.getsockname()[1], connect_timeout_seconds=0.5)


def test_the_connection_leaves_nothing_behind(server):
    board = server.connect()
    folder = Path(board._folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    board.close()
    assert not folder.exists()
    board.close()
