"""Nothing that is finished is lost, and nothing is left: signals, full disks, damage, cuts."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from edgesparse.graph.store import MANIFEST, Store
from edgesparse.graph.workspace import Workspace
from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import HERE, TEMPORARY, TINY, run_cli, run_program
from tests.devices.ondevice.test_detached import await_end, processes
from tests.devices.setup.test_runtimes import mounted
from tests.e2e.conftest import await_rounds, start
from tests.tools.proxy import proxy
from tests.tools.sshd import ssh_server

pytestmark = pytest.mark.slow
LONG = "rounds: 900, min_seconds: 900, min_runs: 900000"


@pytest.fixture
def project(made, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    shutil.rmtree(folder / "work")
    return folder


@pytest.fixture
def board(tmp_path, project):
    with ssh_server(tmp_path / "sshd") as server:
        (project / "devices" / "board.yaml").write_text(server.device_yaml())
        yield server


@pytest.fixture
def temporary(monkeypatch):
    """Where the runs of a test put what is temporary; its path is short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="t", dir=TEMPORARY) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def deploy(folder, *more, device="board", **environment):
    return run_program("deploy", "tiny.yaml", "--device", device, *more, cwd=folder, **environment)


def left_on(server):
    """What is left on a device that is neither a program nor a release."""
    found = [*(server.workdir / "files").iterdir(), *(server.workdir / "jobs").iterdir()]
    return [str(path.relative_to(server.workdir)) for path in found]


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_ctrl_c_does(project, board, temporary, number):
    text = TINY.replace("rounds: 1, min_seconds: 0.05, min_runs: 5", LONG)
    (project / "tiny.yaml").write_text(text)
    process = start(project, "deploy", "tiny.yaml", "--device", "board")
    await_rounds(process, "board")
    running = processes(board.workdir)
    assert running
    process.send_signal(number)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; finished stages are kept" in said
    await_end(running)
    found = Workspace(project).results()
    assert not found.finished
    assert {row.status for row in found.rows} == {"ok"}
    assert left_on(board) == []
    assert list(temporary.iterdir()) == []


def test_what_nohup_ignores_stays_ignored(project):
    argv = ["nohup", "python", "-c", "import signal; from edgesparse.cli.main import main; "
            "main(['--help'], standalone_mode=False); "
            "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"]  # fmt: skip
    environment = {**os.environ, "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=project)
    assert done.stdout.splitlines()[-1] == "True", done.stderr


def test_after_kill_9_the_next_run_tidies_up(project, board, temporary):
    long = TINY.replace("rounds: 1, min_seconds: 0.05, min_runs: 5", LONG)
    (project / "tiny.yaml").write_text(long)
    process = start(project, "deploy", "tiny.yaml", "--device", "board")
    await_rounds(process, "board")
    process.kill()
    process.communicate()
    running = processes(board.workdir)
    assert len(left_on(board)) > 2
    assert list(temporary.iterdir()) != []
    (project / "tiny.yaml").write_text(TINY)
    done = deploy(project)
    assert done.returncode == 0, done.stderr
    # It did not have to wait for the killed one's lease.
    assert "waiting: another job" not in done.stderr
    await_end(running)
    assert [name for name in left_on(board) if name.startswith("jobs/")] == []
    assert list(temporary.iterdir()) == []
    assert not list(Workspace(project).runs.glob("*/open.json"))


@pytest.mark.full
def test_a_deploy_leaves_its_release_and_no_model_besides(project, board, tmp_path):
    """Nor on this machine, which answers the samples for a device."""
    store = Store(project / ".edgesparse" / "store")
    for variant in ("dense-f32", "sparse-f32"):
        shutil.rmtree(artifact(store, f"verify {variant} (ai-edge-litert)"))
    assert deploy(project, HOME=str(tmp_path)).returncode == 0
    assert left_on(board) == []
    here = tmp_path / ".cache" / "edgesparse"
    assert (here / ".edgesparse-workdir").is_file()
    assert [*(here / "files").iterdir(), *(here / "jobs").iterdir()] == []
    assert (board.workdir / "releases" / "tiny" / "current" / "model.tflite").is_file()


@pytest.mark.full
def test_a_model_that_does_not_fit_fails_alone(project, board, tmp_path):
    big = tmp_path / "big.tflite"
    # Behind the flatbuffer, where a runtime does not look.
    big.write_bytes(tiny_model() + os.urandom(8_000_000))
    small = tmp_path / "small.tflite"
    small.write_bytes(tiny_model())
    with mounted(tmp_path / "disk", "size=10m") as disk:
        text = board.device_yaml().replace(str(board.workdir), f"{disk}/work")
        (project / "devices" / "board.yaml").write_text(text)
        done = run_program("bench", big, small, "--device", "board", "--quick", cwd=project)
        assert done.returncode == 1
        rows = {row.variant: row for row in Workspace(project).results().rows}
        assert rows["small"].status == "ok"
        assert rows["big"].status == "failed"
        assert "does not fit: it has 8.0 MB" in rows["big"].error
        assert list((disk / "work" / "files").iterdir()) == []


def test_a_full_disk_here_does_not_take_the_table(tmp_path, monkeypatch):
    model = tmp_path / "model.tflite"
    model.write_bytes(tiny_model())
    with mounted(tmp_path / "disk", "size=256k") as disk:
        (disk / "devices").mkdir()
        text = HERE.replace("workdir: work", f"workdir: {tmp_path}/work")
        (disk / "devices" / "here.yaml").write_text(text)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "full").write_bytes(b"x" * (free - 4096))
        done = run_program("bench", model, "--device", "here", "--quick", cwd=disk)
        assert done.returncode == 1
        assert "p50 ms" in done.stdout
        assert "FAILED: results could not be written: No space left on device" in done.stdout
        assert "Traceback" not in done.stderr


def artifact(store, label):
    import json

    for folder in sorted(store.root.iterdir()):
        if json.loads((folder / MANIFEST).read_text())["label"] == label:
            return folder
    raise AssertionError(label)


@pytest.mark.full
def test_damaged_artifacts_are_made_again_and_said(project):
    """A flipped bit, a truncated model, lost and broken JSON: nothing of it is measured."""
    store = Store(project / ".edgesparse" / "store")
    flipped = next(artifact(store, "encode sparse-f32 (ai-edge-litert)").glob("*.tflite"))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    state = flipped.stat()
    flipped.write_bytes(content)
    os.utime(flipped, ns=(state.st_atime_ns, state.st_mtime_ns))
    short = next(artifact(store, "convert dense-f32").glob("*.tflite"))
    short.write_bytes(short.read_bytes()[:1000])
    (artifact(store, "verify dense-f32 (ai-edge-litert)") / "verify.json").write_text("{")
    (artifact(store, "train") / "metrics.json").write_text('{"accuracy": "a lot"}')
    # Last: artifacts are searched by their manifests.
    (artifact(store, "verify sparse-f32 (ai-edge-litert)") / MANIFEST).unlink()
    plan = run_cli("plan", "tiny.yaml", "--device", "here", cwd=project)
    assert f"stored artifact is damaged: {flipped.name} has changed" in plan.stdout
    done = deploy(project, device="here")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is damaged") == 5
    assert "damaged (artifact.json is missing); running the stage again" in done.stderr
    assert {row.status for row in Workspace(project).results().rows} == {"ok"}
    assert Store(store.root).problems() == []
    again = deploy(project, device="here")
    assert "damaged" not in again.stderr


@pytest.mark.full
@pytest.mark.parametrize("refuse", [1, 3])
def test_a_cut_while_a_device_is_set_up_is_gone_over(project, board, refuse):
    """Each connection that is made breaks after a while, and the next ones while keys are
    exchanged."""
    with proxy(board.port) as between:
        text = board.device_yaml(**board.through(between.port))
        (project / "devices" / "board.yaml").write_text(text)
        between.cut_after_bytes, between.max_cuts = 9_000, 3
        between.refuse = refuse
        done = deploy(project)
        assert done.returncode == 0, done.stderr
        assert between.cuts == 3
        assert between.refuse == 0
    assert left_on(board) == []
