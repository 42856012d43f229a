"""Several devices at once, each behind a real OpenSSH server."""

import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgesparse.devices.setup.releases import released
from edgesparse.graph.workspace import Workspace
from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import TINY, run_cli
from tests.devices.ondevice.test_detached import await_end, processes
from tests.e2e.conftest import await_rounds, start
from tests.tools.fake_runtime import make_runtime, meeting
from tests.tools.sshd import free_port, ssh_server

pytestmark = pytest.mark.slow
DEVICES = 20
LONG = "rounds: 900, min_seconds: 900, min_runs: 900000"


@pytest.fixture
def project(tmp_path):
    """A pipeline that is quick, and two boards; nothing is trained yet."""
    (tmp_path / "devices").mkdir()
    (tmp_path / "tiny.yaml").write_text(TINY)
    with ExitStack() as stack:
        boards = {name: stack.enter_context(ssh_server(tmp_path / name)) for name in ("one", "two")}
        for name, server in boards.items():
            (tmp_path / "devices" / f"{name}.yaml").write_text(server.device_yaml(name))
        yield tmp_path, boards


@pytest.fixture
def trained(project, shared_store):
    """The same in the store of all tests, where its models are trained."""
    return project


def deploy(folder, *arguments):
    return run_cli("deploy", "tiny.yaml", *arguments, cwd=folder)


def rows(folder):
    return [(r.device, r.variant, r.status) for r in Workspace(folder).results().rows]


@pytest.mark.full
def test_a_group_has_a_block_for_each_device_and_a_summary(project):
    folder, boards = project
    (folder / "devices" / "both.yaml").write_text("name: both\ndevices: [one, two]\n")
    done = deploy(folder, "--device", "both")
    assert done.returncode == 0, done.stderr
    variants = ("dense-f32", "sparse-f32")
    assert rows(folder) == [(d, v, "ok") for d in ("one", "two") for v in variants]
    for name, server in boards.items():
        assert f"{name} | ai-edge-litert" in done.stdout
        assert f" to {name} gains: " in " ".join(done.stdout.split())
        board = server.connect()
        assert released(board, "tiny").current
        board.close()
    # Trained once, for both.
    assert done.stderr.count("train ...") == 1
    # Nothing is sent again, and what is released stays.
    again = deploy(folder, "--device", "one")
    assert again.returncode == 0, again.stderr
    assert "train: cached" in again.stderr
    listed = run_cli("device", "releases", "one", "tiny", cwd=folder)
    assert "current" in listed.stdout


def test_a_dead_device_is_a_failed_block_beside_the_others(trained):
    folder, boards = trained
    dead = boards["two"].device_yaml("dead").replace(f"{boards['two'].port}", f"{free_port()}")
    (folder / "devices" / "dead.yaml").write_text(dead)
    done = deploy(folder, "--device", "dead", "--device", "one")
    assert done.returncode == 1
    found = rows(folder)
    assert {status for device, _, status in found if device == "dead"} == {"failed"}
    assert {status for device, _, status in found if device == "one"} == {"ok"}
    assert "FAILED set up dead: device dead (127.0.0.1): connection refused" in done.stderr
    assert "dead: device dead (127.0.0.1): connection refused" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_a_canary_that_is_not_well_stops_the_rollout(trained):
    folder, boards = trained
    gate = "gates:\n  - {variant: sparse-f32, metric: bytes, max: 1}\n"
    (folder / "tiny.yaml").write_text(TINY + gate)
    both = ("--device", "one", "--device", "two")
    stopped = deploy(folder, *both, "--canary", "one")
    assert stopped.returncode == 3
    assert {device for device, _, _ in rows(folder)} == {"one"}
    assert "canary one failed; skipped two" in stopped.stdout
    (folder / "tiny.yaml").write_text(TINY)
    done = deploy(folder, *both, "--canary", "one")
    assert done.returncode == 0, done.stderr
    assert {device for device, _, _ in rows(folder)} == {"one", "two"}
    board = boards["two"].connect()
    assert released(board, "tiny").current
    board.close()
    unknown = deploy(folder, *both, "--canary", "three")
    assert unknown.returncode == 2
    assert "--canary three: no such --device" in unknown.stderr


def test_an_unreachable_device_of_a_rollout_is_in_the_table(trained):
    folder, boards = trained
    text = boards["one"].device_yaml("away", port=1)
    (folder / "devices" / "away.yaml").write_text(text)
    both = ("--device", "away", "--device", "two")
    stopped = deploy(folder, *both, "--canary", "away")
    assert stopped.returncode == 1
    assert {(device, status) for device, _, status in rows(folder)} == {("away", "failed")}
    assert "connection refused" in " ".join(stopped.stdout.split())
    assert "canary away failed; skipped two" in stopped.stdout
    behind = deploy(folder, *both, "--canary", "two")
    assert behind.returncode == 1
    found = {(device, status) for device, _, status in rows(folder)}
    assert found == {("away", "failed"), ("two", "ok")}


@pytest.mark.full
def test_a_release_that_fails_on_the_canary_stops_the_rollout(trained):
    folder, boards = trained
    both = ("--device", "one", "--device", "two")
    assert deploy(folder, "--device", "one", "--variant", "dense-f32").returncode == 0
    (folder / "tiny.yaml").write_text(TINY.replace("name: tiny", "name: other"))
    (boards["one"].workdir / "releases" / "other").touch()
    stopped = deploy(folder, *both, "--canary", "one")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert {device for device, _, _ in rows(folder)} == {"one"}
    assert "canary one failed; skipped two" in stopped.stdout


@pytest.mark.full
def test_rollback_makes_the_earlier_release_current(trained):
    folder, _ = trained
    (folder / "tiny.yaml").write_text(TINY + "release: dense-f32\n")
    assert deploy(folder, "--device", "one").returncode == 0
    nothing = run_cli("device", "rollback", "one", "tiny", cwd=folder)
    assert nothing.returncode == 1
    assert "no earlier release" in nothing.stderr
    text = TINY.replace("\nbenchmark:", "\n  half: {quantize: f16}\nbenchmark:")
    (folder / "tiny.yaml").write_text(text + "release: half\n")
    second = deploy(folder, "--device", "one")
    assert ", replaces " in second.stdout
    back = run_cli("device", "rollback", "one", "tiny", cwd=folder)
    assert back.returncode == 0, back.stderr
    # What was rolled back from is no good one: nothing leads back to it.
    assert [line.split()[1:] for line in back.stdout.splitlines()] == [["current"]]
    again = run_cli("device", "rollback", "one", "tiny", cwd=folder)
    assert again.returncode == 1
    assert "no earlier release" in again.stderr


@pytest.mark.full
def test_ctrl_c_stops_every_device_and_keeps_what_is_measured(trained):
    folder, boards = trained
    text = TINY.replace("rounds: 1, min_seconds: 0.05, min_runs: 5", LONG)
    assert LONG in text
    (folder / "tiny.yaml").write_text(text)
    process = start(folder, "deploy", "tiny.yaml", "--device", "one", "--device", "two")
    await_rounds(process, *boards)
    running = {**processes(boards["one"].workdir), **processes(boards["two"].workdir)}
    assert running
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    await_end(running)
    found = Workspace(folder).results()
    assert not found.finished
    assert {r.device for r in found.rows if r.status == "ok"} == set(boards)
    assert all(r.latency_ms.rounds < 1000 for r in found.rows if r.status == "ok")
    for server in boards.values():
        assert not processes(server.workdir)
        assert not list((server.workdir / "jobs").iterdir())


@pytest.mark.full
def test_twenty_devices_are_measured_at_the_same_time(tmp_path):
    """Each step of each device waits for that step of all others: one that lagged would stop it."""
    # Not tmp_path: a socket's path must be short.
    place = Path(tempfile.mkdtemp(prefix="edgesparse-"))
    python = make_runtime(tmp_path / "runtime", place / "meeting")
    (tmp_path / "devices").mkdir()
    (tmp_path / "tiny.tflite").write_bytes(tiny_model())
    names = [f"d{i}" for i in range(DEVICES)]
    with ExitStack() as stack:
        met = stack.enter_context(meeting(place / "meeting", DEVICES))
        for name in names:
            server = stack.enter_context(ssh_server(tmp_path / name))
            text = server.device_yaml(name, python=str(python))
            (tmp_path / "devices" / f"{name}.yaml").write_text(text)
        (tmp_path / "devices" / "all.yaml").write_text(f"name: all\ndevices: {names}\n")
        done = run_cli("bench", "tiny.tflite", "--device", "all", "--quick", cwd=tmp_path)
    shutil.rmtree(place)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in rows(tmp_path)] == names
    # A check and the rounds of --quick.
    assert met == [DEVICES] * 3
