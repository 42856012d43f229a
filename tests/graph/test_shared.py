"""A store on S3, by a real S3 server on loopback."""

import json
import os
import socket
import subprocess
import sys
import uuid

import pytest

from edgesparse.graph import shared as sharing
from edgesparse.graph.shared import Shared
from edgesparse.graph.store import MANIFEST, Store
from edgesparse.spec.errors import EdgesparseError, UsageError
from tests.tools.sshd import free_port

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory):
    """Its address; clients find it through the environment, as users' do."""
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log.txt"
    given = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    before = {name: os.environ.get(name) for name in given}
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with subprocess.Popen(command, stdout=out, stderr=out) as server:
            os.environ.update(given)
            forget_clients()
            try:
                while server.poll() is None:
                    with socket.socket() as probe:
                        if probe.connect_ex(("127.0.0.1", port)) == 0:
                            break
                assert server.poll() is None, log.read_text()
                yield f"http://127.0.0.1:{port}"
            finally:
                server.kill()
                forget_clients()
                for name, value in before.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})


def forget_clients():
    """fsspec keeps clients, which keep the address that they began with."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def bucket(server):
    """A new one."""
    import fsspec

    assert server == os.environ["AWS_ENDPOINT_URL"]
    name = f"b{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def url(s3_server):
    return f"{bucket(s3_server)}/folder"


def store(folder, url):
    return Store(folder, Shared(url))


def make(found, key, text="content"):
    with found.create(key, {"label": "x"}) as part:
        (part / "file.txt").write_text(text)
        (part / "deep").mkdir()
        (part / "deep" / "other.bin").write_bytes(bytes(1000))


def test_what_one_machine_makes_another_has(tmp_path, url):
    first, second = store(tmp_path / "a", url), store(tmp_path / "b", url)
    assert not second.has(KEY)
    make(first, KEY)
    assert second.has(KEY)
    assert not (tmp_path / "b" / KEY).exists(), "nothing is fetched before it is used"
    folder = second.path(KEY)
    assert (folder / "file.txt").read_text() == "content"
    assert (folder / "deep" / "other.bin").read_bytes() == bytes(1000)
    assert second.wrong(KEY) is None
    assert second.problems() == []


def test_a_half_artifact_is_none(tmp_path, url):
    import fsspec

    files = fsspec.filesystem("s3")
    files.pipe_file(f"{url}/{KEY}/place/file.txt", b"content")
    assert not store(tmp_path / "a", url).has(KEY)


def test_two_that_make_the_same_do_not_mix(tmp_path, url):
    """Trainings that cannot be repeated give other bytes under one key."""
    first, second = store(tmp_path / "a", url), store(tmp_path / "b", url)
    make(first, KEY, "of the first")
    make(second, KEY, "of the second")
    third = store(tmp_path / "c", url)
    assert (third.path(KEY) / "file.txt").read_text() in ("of the first", "of the second")
    assert third.wrong(KEY) is None


def test_what_was_changed_there_is_refused(tmp_path, url):
    import fsspec

    make(store(tmp_path / "a", url), KEY)
    files = fsspec.filesystem("s3")
    manifest = json.loads(files.cat_file(f"{url}/{KEY}/{MANIFEST}"))
    place = manifest["place"]
    files.pipe_file(f"{url}/{KEY}/{place}/file.txt", b"changed")
    with pytest.raises(EdgesparseError, match=r"is damaged: file\.txt has changed"):
        store(tmp_path / "b", url).path(KEY)
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, url, name):
    import fsspec

    content = {"files": {name: {"bytes": 1, "sha256": "0"}}, "place": "p", "key": OTHER}
    fsspec.filesystem("s3").pipe_file(f"{url}/{OTHER}/{MANIFEST}", json.dumps(content).encode())
    found = store(tmp_path / "a", url)
    assert not found.has(OTHER)
    assert not found.path(OTHER).exists()


def test_a_server_that_is_gone_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "TRIES", 2)
    monkeypatch.setattr(sharing, "_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_clients()
    with pytest.raises(EdgesparseError, match="the store s3://nowhere cannot be looked at"):
        store(tmp_path / "a", "s3://nowhere").has(KEY)
    forget_clients()


def test_an_address_that_is_none_is_told(tmp_path):
    with pytest.raises(UsageError, match="Protocol not known"):
        store(tmp_path / "a", "nosuch://x/y")
