"""A store on S3, by a real S3 server on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
import uuid

import pytest

from edgesparse.graph import shared_store as sharing
from edgesparse.graph.shared_store import Shared
from edgesparse.graph.store import MANIFEST, READS, Store
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import file_digest
from tests.conftest import HERE, TINY, run_cli
from tests.tools.sshd import free_port

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory):
    """Its address; clients find it through the environment, as users' do."""
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log.txt"
    values = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    before = {name: os.environ.get(name) for name in values}
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with subprocess.Popen(command, stdout=out, stderr=out) as server:
            os.environ.update(values)
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
    assert second.damage(KEY) is None
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
    assert third.damage(KEY) is None


@pytest.mark.parametrize(
    "damage", ["changed", "missing", "half a manifest", "another artifact's", "no JSON object"]
)
def test_a_damaged_remote_artifact_is_rebuilt(tmp_path, url, damage):
    import fsspec

    make(store(tmp_path / "a", url), KEY)
    files, path = fsspec.filesystem("s3"), f"{url}/{KEY}"
    manifest = files.cat_file(f"{path}/{MANIFEST}")
    if damage == "changed":
        files.pipe_file(f"{path}/{json.loads(manifest)['place']}/file.txt", b"changed")
    elif damage == "missing":
        files.rm_file(f"{path}/{json.loads(manifest)['place']}/file.txt")
    elif damage == "half a manifest":
        files.pipe_file(f"{path}/{MANIFEST}", manifest[: len(manifest) // 2])
    elif damage == "another artifact's":
        make(store(tmp_path / "a", url), OTHER)
        files.pipe_file(f"{path}/{MANIFEST}", files.cat_file(f"{url}/{OTHER}/{MANIFEST}"))
    else:
        files.pipe_file(f"{path}/{MANIFEST}", b"[1]")
    second = store(tmp_path / "b", url)
    assert not second.ready(KEY)
    assert not second.has(KEY)
    assert not list((tmp_path / "b").iterdir())
    make(second, KEY, "again")
    third = store(tmp_path / "c", url)
    assert third.ready(KEY)
    assert (third.path(KEY) / "file.txt").read_text() == "again"


def test_projects_share_artifacts_whose_files_are_the_same_in_both(tmp_path):
    """A key stands for the content, whichever project made it; files that the user's code reads are
    compared with those of the project that wants it."""
    url = f"file://{tmp_path}/shared"
    projects = [tmp_path / name for name in ("first", "copied", "edited")]
    for project in projects:
        project.mkdir()
        (project / "words.txt").write_text("same" if project.name != "edited" else "other")
    first, copied, edited = (Store(p / "store", Shared(url), p) for p in projects)
    reads = {"words.txt": file_digest(projects[0] / "words.txt")}
    with first.create(KEY, {READS: reads}) as folder:
        (folder / "file.txt").write_text("content")
    assert (copied.path(KEY) / "file.txt").read_text() == "content"
    assert not edited.has(KEY)


def test_a_manifest_in_a_folder_is_replaced_whole(tmp_path):
    """Who reads while others write sees the old or the new one."""
    import threading

    url = f"file://{tmp_path}/shared"
    make(store(tmp_path / "a", url), KEY)
    done = threading.Event()
    seen = []

    def read():
        while not done.is_set():
            seen.append(Shared(url).has(KEY))

    reader = threading.Thread(target=read)
    reader.start()
    writer = Shared(url)
    for _ in range(100):
        writer.put(KEY, tmp_path / "a" / KEY)
    done.set()
    reader.join()
    assert all(seen)
    assert not list((tmp_path / "shared").rglob("*.part"))


def test_an_artifact_under_another_key_is_damaged(tmp_path):
    result = Store(tmp_path / "a")
    make(result, KEY)
    shutil.copytree(result.path(KEY), result.path(OTHER))
    assert "belongs to another artifact" in result.damage(OTHER)


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, url, name):
    import fsspec

    content = {"files": {name: {"bytes": 1, "sha256": "0"}}, "place": "p", "key": OTHER}
    fsspec.filesystem("s3").pipe_file(f"{url}/{OTHER}/{MANIFEST}", json.dumps(content).encode())
    result = store(tmp_path / "a", url)
    assert not result.has(OTHER)
    assert not result.path(OTHER).exists()


def test_an_unreachable_server_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "TRIES", 2)
    monkeypatch.setattr(sharing, "_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_clients()
    with pytest.raises(EdgesparseError, match="the store s3://nowhere cannot be read"):
        store(tmp_path / "a", "s3://nowhere").has(KEY)
    forget_clients()


def test_a_silent_server_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "SILENT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        forget_clients()
        with pytest.raises(EdgesparseError, match="cannot be read: no answer within 0 s"):
            store(tmp_path / "a", "s3://somewhere").has(KEY)
        forget_clients()
        # FTP greets first.
        address = f"ftp://me:hunter2@127.0.0.1:{silent.getsockname()[1]}/x?key=t0ken"
        message = r"'store: ftp://\*\*\*@127.0.0.1:\d+/x\?\*\*\*': no answer within 0 s"
        with pytest.raises(UsageError, match=message) as error:
            Shared(address)
    assert "hunter2" not in str(error.value)
    assert "t0ken" not in str(error.value)


def test_an_invalid_address_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="Protocol not known"):
        store(tmp_path / "a", "nosuch://x/y")


@pytest.mark.slow
def test_a_run_makes_again_what_is_damaged_there(tmp_path, made):
    """Artifacts of another machine: weights that are cut off, which a new variant needs; and an
    encoded model without its storage.json, which is read at the end of the run only."""
    url = f"file://{tmp_path}/shared"
    stored = made / ".edgesparse" / "store"
    for manifest in stored.glob(f"*/{MANIFEST}"):
        Shared(url).put(manifest.parent.name, manifest.parent)
    by_stage = {
        json.loads(path.read_text())["stage"]: path.parent
        for path in (tmp_path / "shared").glob(f"*/{MANIFEST}")
    }
    trained, encoded = by_stage["train"], by_stage["encode"]
    for file in encoded.glob("*/storage.json"):
        file.unlink()
    for weights in trained.glob("*/*.h5"):
        weights.write_bytes(weights.read_bytes()[:100])
    project = tmp_path / "project"
    (project / "devices").mkdir(parents=True)
    (project / "devices" / "here.yaml").write_text(HERE)
    text = TINY.replace("benchmark:", "  dense-f16: {quantize: f16}\nbenchmark:")
    (project / "tiny.yaml").write_text(text.replace("data:", f"store: {url}\ndata:", 1))
    done = run_cli("run", "tiny.yaml", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "damaged artifact: " in done.stderr
    for artifact in (trained, encoded):
        assert store(tmp_path / "third", url).ready(artifact.name)
