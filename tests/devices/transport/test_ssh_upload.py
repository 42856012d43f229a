"""Copies over a real SSH server, over links that break, and of several senders at once."""

import hashlib
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from edgesparse.devices.transport import ssh_upload
from edgesparse.devices.transport.interface import (
    ConnectionLost,
    DeviceError,
    NotWrittenError,
    upload,
)
from edgesparse.spec.safe.compression import wire_bytes
from tests.devices.setup.test_runtimes import mounted
from tests.tools.proxy import proxy
from tests.tools.sshd import ssh_server

pytestmark = pytest.mark.slow


def place(board, source):
    return f"{board.workdir}/files/{hashlib.sha256(source.read_bytes()).hexdigest()}"


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


def test_an_upload_that_is_cut_goes_on_where_it_ended(server, big):
    with proxy(server.port, cut_after_bytes=1_000_000) as between:
        board = server.connect(**server.through(between.port))
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
    monkeypatch.setattr(ssh_upload, "UPLOAD_TRIES", 2)
    with proxy(server.port, cut_after_bytes=30_000, max_cuts=1000) as between:
        board = server.connect(**server.through(between.port))
        target = f"{board.workdir}/never"
        with pytest.raises(ConnectionLost, match="connection lost 2 times"):
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


def test_parts_of_earlier_senders_are_resumed(server, big):
    """It was killed: nobody goes on with its own part."""
    target = f"{server.workdir}/left"
    Path(server.workdir).mkdir(exist_ok=True)
    file = upload(big, target)
    Path(f"{target}.{file.sha256}.0123456789ab.part").write_bytes(big.read_bytes()[:2_000_000])
    board = server.connect()
    assert board.put_files([file]) == 1_000_000
    board.close()
    assert Path(target).read_bytes() == big.read_bytes()
    assert not list(Path(server.workdir).glob("left.*"))


@pytest.fixture
def model(tmp_path):
    """3 MB, four fifths of them zeros, as a pruned model has them."""
    source = tmp_path / "model.tflite"
    source.write_bytes(b"".join(os.urandom(600) + bytes(2400) for _ in range(1000)))
    return source


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_models_go_packed_and_arrive_as_they_are(board, model):
    file, shares = upload(model, place(board, model)), []
    sent = board.put_files([file], lambda share, _: shares.append(share))
    assert sent == wire_bytes(model)
    assert sent < model.stat().st_size / 3
    assert Path(file.target).read_bytes() == model.read_bytes()
    assert shares == sorted(shares)
    left = {path.name for path in Path(file.target).parent.iterdir()}
    assert not [name for name in left if name.endswith((".xz", ".part"))]
    assert board.put_files([file]) == 0


def test_a_packed_model_goes_on_where_a_cut_ended(server, tmp_path):
    source = tmp_path / "large.tflite"
    source.write_bytes(b"".join(os.urandom(1500) + bytes(1500) for _ in range(2000)))
    with proxy(server.port, cut_after_bytes=1_000_000) as between:
        board = server.connect(**server.through(between.port))
        file = upload(source, place(board, source))
        board.put_files([file])
        board.close()
    assert between.cuts == 1
    assert Path(file.target).read_bytes() == source.read_bytes()
    assert sum(between.sent) < 1.7 * wire_bytes(source)


def test_a_device_that_unpacks_nothing_gets_them_as_they_are(tmp_path, model):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sha256sum", "cut", "wc", "df", "awk", "cat", "mv", "rm", "mkdir", "dirname", "cp",
                 "touch", "timeout", "sh"):  # fmt: skip
        (tools / name).symlink_to(shutil.which(name))
    with ssh_server(tmp_path / "sshd", PATH=tools) as server:
        board = server.connect()
        file = upload(model, place(board, model))
        sent = board.put_files([file])
        assert Path(file.target).read_bytes() == model.read_bytes()
        assert sent == wire_bytes(model) + model.stat().st_size
        # It is not tried again.
        other = tmp_path / "other.tflite"
        other.write_bytes(model.read_bytes()[::-1])
        assert board.put_files([upload(other, place(board, other))]) == other.stat().st_size
        board.close()


@pytest.mark.full
def test_two_hosts_may_send_the_same_file_at_once(server, tmp_path):
    """Over a link of 800 KB/s, 20 times: both finish, and the file is right."""
    with proxy(server.port) as between:
        between.bytes_per_second = 800_000
        way = server.through(between.port)
        boards = [server.connect(**way) for _ in range(2)]
        for number in range(20):
            source = tmp_path / f"model-{number}.tflite"
            source.write_bytes(os.urandom(400_000))
            file = upload(source, place(boards[0], source))
            errors, together = [], threading.Barrier(2)

            def send(board, file=file, errors=errors, together=together):
                together.wait()
                try:
                    board.put_files([file])
                except DeviceError as error:
                    errors.append(error)

            threads = [threading.Thread(target=send, args=(board,)) for board in boards]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            assert Path(file.target).read_bytes() == source.read_bytes()
            assert not list(Path(file.target).parent.glob("*.part"))
        for board in boards:
            board.close()


def test_a_link_planted_as_part_is_not_written_through(server, board, big, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = f"{board.workdir}/linked"
    file = upload(big, target)
    Path(board.workdir).mkdir(exist_ok=True)
    os.symlink(victim, f"{target}.{file.sha256}.{board._sender.id}.part")
    board.put_files([file])
    assert victim.read_text() == "mine"
    assert Path(target).read_bytes() == big.read_bytes()
    assert not Path(target).is_symlink()


def test_files_of_a_careless_umask_are_not_everybodys(tmp_path, big):
    """Of the server, and so of everything that is run there."""
    before = os.umask(0)
    try:
        with ssh_server(tmp_path / "sshd") as server:
            board = server.connect()
            target = f"{board.workdir}/files/x"
            board.put_files([upload(big, target)])
            board.close()
    finally:
        os.umask(before)
    for path in (target, f"{board.workdir}/files"):
        assert not os.stat(path).st_mode & 0o022


def test_files_that_do_not_fit_are_refused_and_the_rest_is_sent(server, tmp_path, big):
    small = tmp_path / "small.tflite"
    small.write_bytes(os.urandom(1000))
    with mounted(tmp_path / "disk", "size=6m"):
        board = server.connect(tmp_path / "disk" / "work")
        Path(board.workdir).mkdir()
        files = [upload(big, f"{board.workdir}/a"), upload(small, f"{board.workdir}/b")]
        refused = {}
        assert board.put_files(files, refused=refused) == 1000
        assert list(refused) == [files[0].target]
        assert "big.tflite does not fit: it has 3.0 MB, and 6." in refused[files[0].target]
        with pytest.raises(NotWrittenError, match="free space or"):
            board.put_files(files)
        board.close()


def test_a_disk_that_fills_while_a_file_comes_fails_that_file_only(
    server, tmp_path, big, monkeypatch
):
    small = tmp_path / "small.tflite"
    small.write_bytes(os.urandom(1000))
    monkeypatch.setattr("edgesparse.devices.transport.interface.ROOM_LEFT_BYTES", -(10**9))
    with mounted(tmp_path / "disk", "size=2m"):
        board = server.connect(tmp_path / "disk" / "work")
        Path(board.workdir).mkdir()
        files = [upload(big, f"{board.workdir}/a"), upload(small, f"{board.workdir}/b")]
        refused = {}
        board.put_files(files, refused=refused)
        assert "No space left" in refused[files[0].target]
        assert Path(files[1].target).read_bytes() == small.read_bytes()
        assert [p.name for p in Path(board.workdir).iterdir()] == ["b"]
        board.close()


def test_a_stalled_upload_times_out(server, big, tmp_path, monkeypatch):
    """Its cat is stopped: the connection is well, and nothing moves."""
    monkeypatch.setattr("edgesparse.devices.transport.processes.STALL_SECONDS", 1.0)
    monkeypatch.setattr(ssh_upload, "UPLOAD_TRIES", 1)
    monkeypatch.setattr(
        ssh_upload,
        "_RECEIVE",
        ssh_upload._RECEIVE.replace("cat >>", f"echo $$ > {tmp_path}/pid; kill -STOP $$; cat >>"),
    )
    board = server.connect()
    with pytest.raises(ConnectionLost, match="connection lost 1 times"):
        board.put_files([upload(big, f"{board.workdir}/stalled")])
    board.close()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
