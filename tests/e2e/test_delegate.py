"""edgesparse's delegate on the way to a device: chosen, verified and measured; and whatever
keeps it from being loaded, after which XNNPACK runs the file."""

import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from edgesparse.commands import candidates
from edgesparse.commands.fleet import delegates
from edgesparse.delegate import build
from edgesparse.delegate.load import TESTED
from edgesparse.devices.transport.workdir import MARKER
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.safe.files import file_digest
from edgesparse.stages import verify
from tests.conftest import HERE, TINY, require, run_cli
from tests.tools.sshd import ssh_server

pytestmark = pytest.mark.slow
MLP = TINY[TINY.index("model: ") : TINY.index("train: ")]
PIPELINE = TINY.split("variants:")[0].replace(MLP, "model: {ref: net.py:network}\n") + (
    """variants:
  dense-int8: {quantize: int8}
  sparse-int8:
    sparsify:
      method: magnitude
      sparsity: 0.8
      pattern: block-2x4
      epochs: 1
      exclude: [first, classifier]
    quantize: int8
benchmark: {rounds: 1, min_seconds: 0.05, min_runs: 5, warmup_runs: 2, warmup_seconds: 0}
release: none
"""
)
NETWORK = """
import tensorflow as tf

def network():
    layers = tf.keras.layers
    inputs = tf.keras.Input((8, 8, 1))
    x = layers.Conv2D(128, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv2D(128, 1, activation="relu", name="point")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(inputs, layers.Dense(10, "softmax", name="classifier")(x))
"""
CRASH = "__attribute__((constructor)) static void crash(void) { __builtin_trap(); }"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project whose models are trained, and verified without the delegate."""
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "devices").mkdir()
    (folder / "tiny.yaml").write_text(PIPELINE)
    (folder / "net.py").write_text(NETWORK)
    plain = HERE.replace("here", "plain") + "delegate: xnnpack\n"
    (folder / "devices" / "plain.yaml").write_text(plain)
    done = run_cli("deploy", "tiny.yaml", "--device", "plain", "--force", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {r.delegate for r in Workspace(folder).results().rows} == {"xnnpack"}
    assert "edgesparse" not in " ".join(
        n for r in Workspace(folder).results().rows for n in r.notes
    )
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def project(trained, tmp_path):
    """A copy of it, and a device."""
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    (folder / "devices" / "board.yaml").write_text(HERE.replace("here", "board"))
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Libraries that cannot be loaded, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "crash.c").write_text(CRASH)
    paths = {name: folder / name / "libedgesparse-x86_64.so" for name in ("crash", "half")}
    for path in paths.values():
        path.parent.mkdir()
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared", "-nostdlib"]
    subprocess.run([*compiler, "-o", paths["crash"], folder / "crash.c"], check=True)
    whole = build.library("x86_64").read_bytes()
    paths["half"].write_bytes(whole[: len(whole) // 2])
    return paths


def deploy(folder, expected=0):
    """Rows by variant."""
    done = run_cli("deploy", "tiny.yaml", "--device", "board", "--force", cwd=folder)
    assert done.returncode == expected, done.stdout + done.stderr
    return done, {row.variant: row for row in Workspace(folder).results().rows}


def require_fallback(folder, reason):
    """The sparse file has all of its figures, by XNNPACK, and says why."""
    done, rows = deploy(folder)
    row = rows["sparse-int8"]
    assert (row.status, row.delegate) == ("ok", "xnnpack")
    assert row.latency_ms is not None
    notes = [note for note in row.notes if note.startswith("runs by xnnpack: ")]
    assert len(notes) == 1
    assert reason in notes[0]
    assert reason in " ".join(done.stdout.split())
    assert not any(note.startswith("runs by") for note in rows["dense-int8"].notes)


def test_quantization_aware_training_keeps_blocks_for_it(project):
    text = (project / "tiny.yaml").read_text()
    head, tail = text.rsplit("quantize: int8", 1)
    (project / "tiny.yaml").write_text(
        f"{head}quantize: {{scheme: int8, qat: true, epochs: 1}}{tail}"
    )
    _, rows = deploy(project)
    row = rows["sparse-int8"]
    assert (row.status, row.delegate, row.agreement) == ("ok", "edgesparse", 1)
    point = next(layer for layer in row.layers if layer.name == "point")
    assert point.zeros >= 0.78 * point.weights


def test_a_file_with_blocks_of_zeros_is_run_by_it(project, server):
    (project / "devices" / "board.yaml").write_text(server.device_yaml())
    done, rows = deploy(project)
    assert {name: row.delegate for name, row in rows.items()} == {
        "dense-int8": "xnnpack", "sparse-int8": "edgesparse",
    }  # fmt: skip
    row = rows["sparse-int8"]
    assert row.zeros_exploited
    assert row.agreement == 1
    assert any(note.startswith("delegate edgesparse runs 3 of") for note in row.notes)
    assert row.model.delegate_times is None, "predictions are clear"
    assert row.speedup.baseline == "dense-int8"
    assert "delegate xnnpack, (e) edgesparse | 1 thread" in done.stdout
    assert done.stdout.count("(e)") == 2, "in the heading, and in its row, which can be wrapped"
    # The models of the run have it beside them.
    models = Workspace(project).results_path(Workspace(project).results().run).with_name("models")
    library = build.library("x86_64")
    assert file_digest(models / library.name) == file_digest(library)


def test_a_file_is_timed_where_predictions_cannot_tell(project, monkeypatch):
    monkeypatch.setattr(delegates, "TIMED_BETWEEN", (0.0, 1e9))
    _, rows = deploy(project)
    row = rows["sparse-int8"]
    times = row.model.delegate_times
    # Rounds that differ leave it to the prediction, which is edgesparse's delegate here.
    assert row.delegate == "edgesparse" or times.edgesparse_ms > times.xnnpack_ms
    assert rows["dense-int8"].model.delegate_times is None
    slower = f"runs by xnnpack: {times.xnnpack_ms:.3g} ms, with delegate edgesparse "
    assert any(note.startswith(slower) for note in row.notes) == (row.delegate == "xnnpack")


@pytest.mark.parametrize("name", ["crash", pytest.param("half", marks=pytest.mark.full)])
def test_a_library_that_does_not_load_is_left_out_and_tried_again(
    project, broken, name, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(verify, "library_for", lambda _: broken[name])
        require_fallback(project, "delegate edgesparse failed: the runtime crashed (SIG")
    _, rows = deploy(project)
    assert rows["sparse-int8"].delegate == "edgesparse"


def test_a_folder_that_runs_nothing(project, tmp_path):
    mounted = tmp_path / "noexec"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,size=64m", "tmpfs", str(mounted)]
    require(subprocess.run(mount, check=False).returncode == 0, "the right to mount a file system")
    try:
        device = HERE.replace("here", "board").replace("work\n", f"{mounted}\n")
        (project / "devices" / "board.yaml").write_text(device)
        require_fallback(project, "failed to map segment from shared object")
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@contextmanager
def unwritable(workdir):
    """A file in a workdir in place of the delegate's library, which cannot be replaced."""
    path = workdir / "files" / f"{file_digest(build.library('x86_64'))}.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    (workdir / MARKER).write_text("test")
    path.touch()
    mount = ["mount", "--bind", str(path), str(path)]
    require(subprocess.run(mount, check=False).returncode == 0, "the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("by_ssh", [pytest.param(False, marks=pytest.mark.full), True])
def test_a_folder_that_does_not_take_its_file(project, server, by_ssh):
    workdir = project / "work"
    if by_ssh:
        text = server.device_yaml().replace(str(server.workdir), str(workdir))
        (project / "devices" / "board.yaml").write_text(text)
    with unwritable(workdir):
        require_fallback(project, ".so: ")


def test_a_folder_that_no_longer_takes_its_file(project):
    """It was verified on another device of the same kind."""
    _, rows = deploy(project)
    assert rows["sparse-int8"].delegate == "edgesparse"
    with unwritable(project / "work"):
        require_fallback(project, ".so: ")


def test_a_runtime_it_was_not_tested_with(project, monkeypatch):
    monkeypatch.setitem(TESTED, "ai-edge-litert", ("0.9",))
    require_fallback(project, "is not tested with ai-edge-litert 2.1.6, only with 0.9")


def test_a_machine_without_the_compiler(project, monkeypatch):
    monkeypatch.setattr(build, "COMPILER", "no_such_compiler")
    require_fallback(project, "the delegate is not built: the compiler is missing; pip install")


def test_a_library_that_is_gone_after_the_verification(project, monkeypatch):
    def gone(machine):
        raise build.BuildError(f"no library for {machine}")

    monkeypatch.setattr(candidates, "library", gone)
    require_fallback(project, "no library for x86_64")


def test_a_crash_while_it_is_measured_is_a_row_with_its_error(project, broken, monkeypatch):
    monkeypatch.setattr(candidates, "library", lambda _: broken["crash"])
    _, rows = deploy(project, expected=1)
    assert rows["dense-int8"].status == "ok"
    row = rows["sparse-int8"]
    assert (row.status, row.delegate) == ("failed", "edgesparse")
    assert "the runtime crashed (SIG" in row.error


def test_every_int8_file_is_tried_where_the_device_file_says_so(project):
    with (project / "devices" / "board.yaml").open("a") as file:
        file.write("delegate: edgesparse\n")
    _, rows = deploy(project)
    assert rows["sparse-int8"].delegate == "edgesparse"
    assert rows["dense-int8"].delegate == "xnnpack"
    assert any(
        note.startswith("runs by xnnpack: delegate edgesparse runs 0 of")
        for note in rows["dense-int8"].notes
    )
