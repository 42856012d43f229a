"""Releases: whole or not there, current only after their check, on a real server."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgesparse.devices.measuring.job import Entry
from edgesparse.devices.measuring.samples import save_golden
from edgesparse.devices.setup.install import RELEASES, Release, install, released, rollback
from edgesparse.devices.transport.interface import DeviceError

pytestmark = pytest.mark.slow


@pytest.fixture
def make_release(tflite_files, sparse_dense_layer, samples, tmp_path):
    """Releases that differ in their variant's name."""
    labels, golden = tmp_path / "labels.json", tmp_path / "golden.npz"
    labels.write_text(json.dumps([f"class {i}" for i in range(10)]))
    transform = tmp_path / "transform.json"
    transform.write_text("{}")
    save_golden(golden, samples, sparse_dense_layer(samples).numpy())

    def make(variant, model="dense", min_agreement=1.0):
        entry = Entry(
            variant, tflite_files[model], "ai-edge-litert", "xnnpack", 1, golden, tolerance=1e-3
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


def test_a_release_runs_where_it_lies(server, make_release, samples, tmp_path):
    board = server.connect(tmp_path / "board")
    done = install(board, make_release("a"), 3, "job-a")
    assert done.state.current == done.digest
    assert done.state.previous is None
    require_whole(Path(done.place))
    np.save(tmp_path / "input.npy", samples[0])
    said = board.run([board.python, f"{done.place}/predict.py", str(tmp_path / "input.npy")])
    assert said.returncode == 0, said.stderr
    lines = [line.split("\t") for line in said.stdout.splitlines()]
    assert len(lines) == 5
    assert all(name.startswith("class ") for name, _ in lines)
    shares = [float(share) for _, share in lines]
    assert shares == sorted(shares, reverse=True)
    wrong = board.run([board.python, f"{done.place}/predict.py"])
    assert wrong.returncode == 1
    assert "python predict.py INPUT.npy" in wrong.stderr
    board.close()


def test_a_release_that_answers_wrong_never_becomes_current(server, make_release, tmp_path):
    board = server.connect(tmp_path / "board")
    first = install(board, make_release("a"), 3, "job-a")
    with pytest.raises(DeviceError, match=r"answers wrong there and was not made current: \d+% of"):
        # int8 cannot keep to a thousandth of the range.
        install(board, make_release("b", "int8"), 3, "job-b")
    assert released(board, "digits").current == first.digest
    board.close()


def test_the_last_releases_are_kept_and_can_be_gone_back_to(server, make_release, tmp_path):
    board = server.connect(tmp_path / "board")
    with pytest.raises(DeviceError, match="nothing was released yet"):
        rollback(board, "digits")
    done = [install(board, make_release(name), 2, f"job-{name}") for name in "abc"]
    digests = [release.digest for release in done]
    assert released(board, "digits").releases == digests[1:]
    assert rollback(board, "digits").current == digests[1]
    require_whole(tmp_path / "board/releases/digits/current")
    with pytest.raises(DeviceError, match="there is no release before this one"):
        rollback(board, "digits")
    again = install(board, make_release("c"), 2, "job-again")
    assert (again.digest, again.state.previous) == (digests[2], digests[1])
    board.close()


# Runs a program of ours and dies, as in a power cut, at its NUMBERth step that changes the disk.
_DIES = """
import builtins, os, runpy, shutil, sys
number, program, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = program
left = int(number)
def dying(real):
    def call(*arguments, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return real(*arguments, **named)
    return call
for name in ("mkdir", "rename", "replace", "symlink", "remove", "unlink", "rmdir", "fsync"):
    setattr(os, name, dying(getattr(os, name)))
def half(source, target):
    with open(source, "rb") as given, open(target, "wb") as made:
        made.write(given.read(100))
        made.flush()
        dying(lambda: None)()
        made.write(given.read())
shutil.copyfile = half
runpy.run_path(program, run_name="__main__")
"""


def cut_at_every_step(arguments, check, before=lambda: None):
    """Run until it gets through, cutting the power one step later each time; how many cuts."""
    for number in range(200):
        before()
        command = [sys.executable, "-c", _DIES, str(number), str(RELEASES), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        check()
        if done.returncode == 0:
            return number
        assert done.returncode == -9, done.stderr
    raise AssertionError("it never got through")


@pytest.mark.full
def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new_release(tmp_path):
    root = tmp_path / "releases" / "digits"

    def request(text):
        model = tmp_path / "model"
        model.write_text(text * 1000)
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        manifest = tmp_path / "manifest"
        manifest.write_text(json.dumps({"files": {"model.tflite": digest}}))
        own = hashlib.sha256(manifest.read_bytes()).hexdigest()
        files = {
            "model.tflite": [str(model), digest], "manifest.json": [str(manifest), own]
        }  # fmt: skip
        path = tmp_path / "request.json"
        path.write_text(json.dumps({"root": str(root), "digest": own[:16], "files": files}))
        return path, own[:16]

    seen = set()

    def check():
        link = root / "current"
        if link.is_symlink():
            require_whole(link)
            seen.add(link.resolve().name)

    cuts = 0
    digests = []
    for text in "abc":
        path, digest = request(text)
        digests.append(digest)
        cuts += cut_at_every_step(["install", path], check)
        assert digest not in seen
        cuts += cut_at_every_step(["activate", root, digest, 2], check)
        assert (root / "current").resolve().name == digest

    def activate_the_last():
        command = [sys.executable, str(RELEASES), "activate", str(root), digests[2], "2"]
        subprocess.run(command, check=True, capture_output=True)

    cuts += cut_at_every_step(["rollback", root, digests[2]], check, activate_the_last)
    assert (root / "current").resolve().name == digests[1]
    assert cuts > 40
    assert seen == set(digests)
    # Nothing half-installed lies about once the next one is through.
    path, _ = request("d")
    cut_at_every_step(["install", path], check)
    assert not list(root.glob("*.part"))
