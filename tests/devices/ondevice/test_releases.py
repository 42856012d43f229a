"""Releases where they lie: whatever happens, the last good one is there and is gone back to."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgesparse.devices.ondevice import releases
from edgesparse.devices.setup.releases import RELEASES
from tests.devices.setup.test_releases import require_whole

# Runs a program of ours until its NUMBERth step that changes the disk: there the power is cut, or
# from there on the disk is full.
_FAULTY = """
import builtins, errno, os, resource, runpy, shutil, sys
fault, number, program, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = program
left = int(number)
NEED_ROOM = ("mkdir", "symlink")
def faulty(real):
    def call(*arguments, **named):
        global left
        if left == 0 and fault == "cut":
            os.kill(os.getpid(), 9)
        if left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # No file can grow.
            if real.__name__ in NEED_ROOM:
                raise OSError(errno.ENOSPC, "No space left on device", arguments[-1])
        left -= left > 0
        return real(*arguments, **named)
    return call
for name in ("mkdir", "rename", "replace", "symlink", "remove", "unlink", "rmdir", "fsync"):
    setattr(os, name, faulty(getattr(os, name)))
def half(source, target):
    with open(source, "rb") as given, open(target, "wb") as made:
        made.write(given.read(100))
        made.flush()
        faulty(lambda: None)()
        made.write(given.read())
shutil.copyfile = half
runpy.run_path(program, run_name="__main__")
"""


def call(*arguments, fault="cut", step=10**6):
    """What the program says, or None when it was killed."""
    command = [sys.executable, "-I", "-S", "-c", _FAULTY, fault, str(step), str(RELEASES)]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode == -9:
        return None
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


class Digits:
    """A pipeline's releases, as the program is asked for them: each has a model of its own."""

    def __init__(self, folder):
        self.root = folder / "releases" / "digits"
        self.folder = folder
        self.digests = []

    def request(self, text):
        """A request to install what has this text, and its digest."""
        model, manifest = self.folder / f"model-{text}", self.folder / f"manifest-{text}"
        model.write_text(text * 1000)
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        manifest.write_text(json.dumps({"files": {"model.tflite": digest}}))
        local = hashlib.sha256(manifest.read_bytes()).hexdigest()
        files = {
            "model.tflite": [str(model), digest], "manifest.json": [str(manifest), local]
        }  # fmt: skip
        path = self.folder / f"request-{text}.json"
        request = {"root": str(self.root), "digest": local[:16], "files": files}
        path.write_text(json.dumps(request))
        return path, local[:16]


class Releases(RuleBasedStateMachine):
    """Deploys, failed checks, rollbacks, power cuts, full disks and altered files in any order.

    The model knows in which order which releases were good, and how many of them must be kept.
    """

    faults = st.one_of(st.none(), st.tuples(st.sampled_from(["cut", "full"]), st.integers(0, 16)))
    texts = st.sampled_from("abcdef")

    @initialize(keep=st.integers(1, 3))
    def begin(self, keep):
        self.folder = Path(tempfile.mkdtemp())
        self.own = Digits(self.folder)
        self.keep = keep
        self.current = None
        self.good = []  # All that were good, the current one at the end.
        self.kept = []  # Those of them that must be there.
        self.doubtful = None  # A rollback from it was cut off.
        self.altered = set()

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def state(self):
        return releases.state(str(self.own.root))

    def run(self, fault, *arguments):
        kind, step = fault or ("cut", 10**6)
        answer = call(*arguments, fault=kind, step=step)
        self.doubt_is_over()
        return answer

    def doubt_is_over(self):
        """It is for the program to say whether a rollback that was cut off counts."""
        current = self.state()["current"] if self.own.root.is_dir() else None
        if self.doubtful not in (None, current):
            if self.doubtful not in releases.good(str(self.own.root)):
                self.good = [d for d in self.good if d != self.doubtful]
                self.kept = [d for d in self.kept if d != self.doubtful]
            self.doubtful = None

    def install(self, text, fault=None):
        path, digest = self.own.request(text)
        answer = self.run(fault, "install", path)
        if answer is not None and "error" not in answer:
            self.altered.discard(digest)
            require_whole(self.own.root / digest)
        elif fault and not releases.is_intact(str(self.own.root), digest):
            self.altered.add(digest)  # It was, or is being mended.
        return answer is not None and "error" not in answer, digest

    @rule(text=texts, fault=faults)
    def fail(self, text, fault):
        """Installed, but its check fails, or the host is killed."""
        self.install(text, fault)

    @rule(text=texts, fault=faults)
    def deploy(self, text, fault):
        installed, digest = self.install(text)
        assert installed
        before = self.current
        answer = self.run(fault, "activate", self.own.root, digest, self.keep)
        if answer is None:
            answer = self.state()
        elif "error" in answer:
            assert self.state()["current"] == before, "a failed activation changes nothing"
            return
        if answer["current"] == digest:
            self.good = [*(d for d in self.good if d != digest), digest]
            self.kept = [*(d for d in self.kept if d != digest), digest][-self.keep :]
            self.current = digest
            self.doubtful = None

    @rule(fault=faults)
    def rollback(self, fault):
        now = self.current
        if now is None:
            return
        here = set(self.state()["releases"])
        earlier = [d for d in self.good if d != now and d in here and d not in self.altered]
        answer = self.run(fault, "rollback", self.own.root, now)
        after = self.state()["current"]
        if after == now:
            if fault is None:
                assert not earlier, f"it must go to {earlier[-1]}: {answer}"
            elif earlier:
                self.doubtful = now
            return
        assert after == earlier[-1]
        self.current = after
        self.good = self.good[: self.good.index(after) + 1]
        self.kept = [d for d in self.kept if d in self.good]
        self.doubtful = None

    @rule(number=st.integers(0, 5), content=st.binary(max_size=3))
    def alter(self, number, content):
        """Somebody, or a disk that rots, changes a file of a release."""
        here = releases.folders(str(self.own.root)) if self.own.root.is_dir() else []
        if number < len(here):
            (self.own.root / here[number] / "model.tflite").write_bytes(content)
            self.altered.add(here[number])

    @rule()
    def damage_history(self):
        if (self.own.root / "history").exists():
            with (self.own.root / "history").open("ab") as file:
                file.write(b"\xff\xfe nothing\n")

    @invariant()
    def good_ones_are_there(self):
        if not self.own.root.is_dir():
            return
        state = self.state()
        assert state["current"] == self.current
        here = [d for d in state["releases"] if d != self.doubtful]
        good = [d for d in self.good if d != self.doubtful]
        assert here == good[len(good) - len(here) :], "in order, and none but good ones"
        assert len(here) >= len([d for d in self.kept if d != self.doubtful])
        for digest in set(here) - self.altered:
            require_whole(self.own.root / digest)


def few(examples, steps):
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), derandomize=examples < 20,
    )  # fmt: skip


@pytest.mark.slow
def test_the_last_good_release_is_always_there(monkeypatch):
    case = Releases.TestCase
    monkeypatch.setattr(case, "settings", few(8, 12))
    case().runTest()


@pytest.mark.full
def test_the_last_good_release_is_there_after_many_sequences(monkeypatch):
    case = Releases.TestCase
    monkeypatch.setattr(case, "settings", few(20, 20))
    case().runTest()


def test_a_history_that_cannot_be_read_blocks_nothing(tmp_path):
    local = Digits(tmp_path)
    digests = []
    for age, text in enumerate("abc"):
        path, digest = local.request(text)
        call("install", path)
        call("activate", local.root, digest, 3)
        os.utime(local.root / digest, (1e9 + age, 1e9 + age))
        digests.append(digest)
    (local.root / "history").write_bytes(b"\xff\xfe\x00nothing of it is left")
    assert call("list", local.root)["releases"] == digests
    assert call("rollback", local.root, digests[2])["current"] == digests[1]


def test_what_another_host_installs_is_no_leftover(tmp_path):
    local, jobs = Digits(tmp_path), tmp_path / "jobs"
    jobs.mkdir()
    first, _ = local.request("a")
    request = jobs / "job.json"
    shutil.copy(first, request)
    digest = call("install", first) and local.request("a")[1]
    other, second = local.request("b")
    call("install", other)
    call("activate", local.root, second, 1)
    assert releases.is_intact(str(local.root), digest)
    request.unlink()
    call("install", other)
    assert releases.folders(str(local.root)) == [second]


def cut_at_every_step(arguments, check, before=lambda: None):
    """Run until it gets through, cutting the power one step later each time; how many cuts."""
    for number in range(200):
        before()
        answer = call(*arguments, step=number)
        check()
        if answer is not None:
            assert "error" not in answer
            return number
    raise AssertionError("it never got through")


@pytest.mark.full
def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new_release(tmp_path):
    local = Digits(tmp_path)
    root = local.root
    seen = set()

    def check():
        link = root / "current"
        if link.is_symlink():
            require_whole(link)
            seen.add(link.resolve().name)

    cuts = 0
    digests = []
    for text in "abc":
        path, digest = local.request(text)
        digests.append(digest)
        cuts += cut_at_every_step(["install", path], check)
        assert digest not in seen
        cuts += cut_at_every_step(["activate", root, digest, 2], check)
        assert (root / "current").resolve().name == digest

    cuts += cut_at_every_step(
        ["rollback", root, digests[2]],
        check,
        lambda: call("activate", root, digests[2], 2),
    )
    assert (root / "current").resolve().name == digests[1]
    assert cuts > 40
    assert seen == set(digests)
    # Nothing half-installed lies about once the next one is through.
    path, _ = local.request("d")
    cut_at_every_step(["install", path], check)
    assert not list(root.glob("*.part"))
