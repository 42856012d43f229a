"""Releases: whole or not there, current only after their check, on a real server."""

import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import pytest

from edgesparse.delegate import library
from edgesparse.devices.agent.job import Entry
from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.devices.setup.releases import Release, install, released, rollback
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.spec.safe.files import file_digest

pytestmark = pytest.mark.slow


@pytest.fixture
def make_release(tflite_files, sparse_dense_layer, samples, tmp_path):
    """Releases that differ in their variant's name."""
    labels, golden = tmp_path / "labels.json", tmp_path / "golden.npz"
    labels.write_text(json.dumps([f"class {i}" for i in range(10)]))
    transform = tmp_path / "transform.json"
    transform.write_text("{}")
    save_golden(golden, samples, sparse_dense_layer(samples).numpy())

    def make(variant, model="dense", min_agreement=1.0, delegate="xnnpack"):
        entry = Entry(
            variant, tflite_files[model], "ai-edge-litert", delegate, 1, golden, tolerance=1e-3
        )
        about = {"variant": variant, "runtime": {"name": "ai-edge-litert", "version": "2"}}
        return Release("digits", entry, labels, transform, about, min_agreement)

    return make


def require_whole(place):
    """A release's files are those of its manifest, and its name is the manifest's digest."""
    manifest = (place / "manifest.json").read_bytes()
    assert place.resolve().name == hashlib.sha256(manifest).hexdigest()[:16]
    for name, digest in json.loads(manifest)["files"].items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest, name


def test_an_installed_release_runs(server, make_release, samples, tmp_path):
    board = server.connect(tmp_path / "board")
    done = install(board, make_release("a"), 3, "job-a")
    assert done.state.current == done.digest
    assert done.state.previous is None
    require_whole(Path(done.path))
    np.save(tmp_path / "input.npy", samples[0])
    text = board.run([board.python, f"{done.path}/predict.py", str(tmp_path / "input.npy")])
    assert text.returncode == 0, text.stderr
    lines = [line.split("\t") for line in text.stdout.splitlines()]
    assert len(lines) == 5
    assert all(name.startswith("class ") for name, _ in lines)
    shares = [float(share) for _, share in lines]
    assert shares == sorted(shares, reverse=True)
    wrong = board.run([board.python, f"{done.path}/predict.py"])
    assert wrong.returncode == 1
    assert "python predict.py INPUT.npy" in wrong.stderr
    board.close()


def test_a_release_that_answers_wrong_never_becomes_current(server, make_release, tmp_path):
    board = server.connect(tmp_path / "board")
    first = install(board, make_release("a"), 3, "job-a")
    with pytest.raises(DeviceError, match=r"has wrong outputs and was not made current: \d+% of"):
        # int8 cannot keep to a thousandth of the range.
        install(board, make_release("b", "int8"), 3, "job-b")
    assert released(board, "digits").current == first.digest
    board.close()


def test_the_last_releases_are_kept_and_can_be_gone_back_to(server, make_release, tmp_path):
    board = server.connect(tmp_path / "board")
    with pytest.raises(DeviceError, match="no releases yet"):
        rollback(board, "digits")
    done = [install(board, make_release(name), 2, f"job-{name}") for name in "abc"]
    digests = [release.digest for release in done]
    assert released(board, "digits").releases == digests[1:]
    assert rollback(board, "digits").current == digests[1]
    require_whole(tmp_path / "board/releases/digits/current")
    with pytest.raises(DeviceError, match="no earlier release"):
        rollback(board, "digits")
    again = install(board, make_release("c"), 2, "job-again")
    assert (again.digest, again.state.previous) == (digests[2], digests[1])
    board.close()


def test_failed_releases_push_no_good_ones_out(server, make_release, tmp_path):
    board = server.connect(tmp_path / "board")
    good = [install(board, make_release(name), 3, f"job-{name}").digest for name in "ab"]
    for name in "cde":
        with pytest.raises(DeviceError, match="has wrong outputs"):
            install(board, make_release(name, "int8"), 3, f"job-{name}")
    bad = install(board, make_release("f"), 3, "job-f")
    assert bad.state.releases == [*good, bad.digest]
    assert rollback(board, "digits").current == good[1]
    # What was rolled back from is never gone back to.
    after = install(board, make_release("g"), 3, "job-g")
    assert after.state.releases == [*good, after.digest]
    assert [rollback(board, "digits").current for _ in good] == good[::-1]
    assert not list((tmp_path / "board/jobs").iterdir())
    board.close()


def test_a_release_that_was_altered_is_put_there_again(server, make_release, tmp_path):
    board = server.connect(tmp_path / "board")
    first, second = (install(board, make_release(n), 3, f"job-{n}") for n in "ab")
    for digest in (first.digest, second.digest):
        path = tmp_path / "board/releases/digits" / digest
        (path / "predict.py").write_text("print('altered')")
        (path / "labels.json").write_text("[]")
    with pytest.raises(DeviceError, match=f"no earlier release except the damaged {first.digest}"):
        rollback(board, "digits")
    for name in "ba":
        require_whole(Path(install(board, make_release(name), 3, f"job-again-{name}").path))
    assert rollback(board, "digits").current == second.digest
    board.close()


def test_the_delegates_library_is_a_part_of_its_release(server, make_release, tmp_path):
    """It is checked where it lies, and back after it was damaged."""
    board = server.connect(tmp_path / "board")
    path = library(platform.machine())
    loaded = {"library": path, "options": {"report": "1"}}
    done = install(board, make_release("a", delegate=loaded), 3, "job-a")
    require_whole(Path(done.path))
    manifest = json.loads((Path(done.path) / "manifest.json").read_text())
    assert manifest["delegate"] == {"library": path.name, "options": {}}
    assert manifest["files"][path.name] == file_digest(path)
    install(board, make_release("b"), 3, "job-b")
    installed = Path(done.path).parent / done.digest / path.name
    installed.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DeviceError, match=f"no earlier release except the damaged {done.digest}"):
        rollback(board, "digits")
    again = install(board, make_release("a", delegate=loaded), 3, "job-c")
    assert again.digest == done.digest
    require_whole(Path(done.path))
    board.close()


def test_a_release_whose_delegate_does_not_load_never_becomes_current(
    server, make_release, tmp_path
):
    board = server.connect(tmp_path / "board")
    damaged = tmp_path / library(platform.machine()).name
    damaged.write_bytes(library(platform.machine()).read_bytes()[:5000])
    with pytest.raises(DeviceError, match="does not run and was not made current"):
        install(board, make_release("a", delegate={"library": damaged}), 3, "job-a")
    assert released(board, "digits").current is None
    board.close()
