"""Shared parts: small real models, and ways to call the program."""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# Several test processes on two cores: BLAS' threads would wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from edgesparse.graph.execution.pool import Workers
from tests.tools.commands import Done, close_workers, run_cli, run_program, warm_workers

ROOT = Path(__file__).parent.parent

TINY = """
name: tiny
data: {name: digits, args: {input_shape: [8, 8, 1]}}
model: {name: mlp, args: {input_shape: [8, 8, 1], classes: 10, widths: [32]}}
train: {epochs: 1, batch_size: 64, learning_rate: 5.0e-3}
variants:
  dense-f32: {}
  sparse-f32:
    sparsify: {method: magnitude, sparsity: 0.5, pattern: block-1x4, epochs: 1}
benchmark: {rounds: 1, min_seconds: 0.05, min_runs: 5, warmup_runs: 2, warmup_seconds: 0}
"""

HERE = """
name: here
connect: {local: {}}
workdir: work
runtimes: [ai-edge-litert]
"""


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Done]:
    def run(*arguments: str | Path, **environment: str) -> Done:
        return run_cli(*arguments, cwd=tmp_path, **environment)

    return run


@pytest.fixture(scope="session", autouse=True)
def workers() -> Iterator[Workers]:
    """The TensorFlow process that tests share."""
    yield warm_workers()
    close_workers()


def once(place: Path, make: Callable[[], Done]) -> Done:
    """A command that is run by one of pytest's processes, and what it printed, for all of them."""
    with place.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            done = make()
            part = place.with_suffix(".part")
            part.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
            part.rename(place)
    return subprocess.CompletedProcess(*json.loads(place.read_text()))


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all of pytest's processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def made(shared) -> Path:
    """A project in which every stage of the tiny pipeline is done; its store is not written to."""
    folder = shared / "made"

    def make() -> Done:
        (folder / "devices").mkdir(parents=True)
        (folder / "devices" / "here.yaml").write_text(HERE)
        (folder / "tiny.yaml").write_text(TINY)
        return run_cli("deploy", "tiny.yaml", "--device", "here", cwd=folder)

    done = once(shared / "made-tiny", make)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def artifacts(shared, made) -> Path:
    """A folder for $EDGESPARSE_STORE, with the tiny pipeline's models: keys are by content, so that
    what one test has trained none trains again."""
    folder = shared / "artifacts"

    def copy() -> Done:
        shutil.copytree(made / ".edgesparse" / "store", folder / "store")
        return subprocess.CompletedProcess("copy", 0, "", "")

    once(shared / "store-copied", copy)
    return folder


@pytest.fixture
def shared_store(artifacts, monkeypatch) -> None:
    """The store of all tests that need none of their own."""
    monkeypatch.setenv("EDGESPARSE_STORE", str(artifacts))


@pytest.fixture
def give_models(made) -> Callable[[Path], object]:
    """Puts the tiny pipeline's models into another project, for tests of what comes after them."""
    return lambda folder: shutil.copytree(
        made / ".edgesparse" / "store", folder / ".edgesparse" / "store"
    )


def require(condition: bool, reason: str) -> None:
    """Skip with a reason; in CI a missing part is a failure."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(reason)


def _own_temporary_folder() -> str:
    """One for this test process and all that it starts, so that what is left in it can be seen."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return folder


TEMPORARY = Path(_own_temporary_folder())
__all__ = ["Done", "run_cli", "run_program"]


def our_ssh() -> dict[int, str]:
    """Command lines of ssh processes that this test process, or what it started, began: each names
    the socket of its connection."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "ssh":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(TEMPORARY) in command:
                    found[int(entry.name)] = command
    return found


@pytest.fixture(autouse=True, scope="module")
def no_ssh_is_left() -> Iterator[None]:
    """After every file of tests, no ssh of ours is left that was not there before it."""
    before = our_ssh()
    yield
    left = {pid: line for pid, line in our_ssh().items() if pid not in before}
    # What was told to end may still be ending: waited for, not slept for.
    for pid in left:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            select.select([handle], [], [], 10)
            os.close(handle)
    left = {pid: line for pid, line in our_ssh().items() if pid in left}
    assert not left, f"ssh processes are left: {left}"


FIRST = ("test_deploy.py", "test_pi.py")
"""The longest chains: `make deploy` of the exhaustive tests, and the emulated Pi of the others."""
ON_THE_EMULATED_PI = ("test_pi.py", "test_emulated.py", "test_readme.py")
"""They need one emulated Pi, and what test_deploy.py has made: one after another, in one process,
while the other one goes on with what is left."""
LONGER = ("test_clusters.py", "test_newcomer.py", "test_shipped.py", "test_emulator.py")
"""Those of the end-to-end tests that take minutes, and need nothing that is made elsewhere, or what
one of them makes before."""


def pytest_configure(config: pytest.Config) -> None:
    """Modules are imported without garbage collection; see pytest_collection_finish, which xdist
    does not call where it only hands tests out."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, and what waits for it when it will be there."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> tuple[int, int]:
        name = item.path.name
        if name in FIRST:
            return 0, FIRST.index(name)
        if name in LONGER:
            return 1, LONGER.index(name)
        if name in ON_THE_EMULATED_PI:
            return 2, ON_THE_EMULATED_PI.index(name)
        if item.path.parent.name == "e2e":
            return 3, 0
        return 4, item.path not in slow

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Each network that Keras forgets has all objects looked through: a fifth of the time, were
    those of TensorFlow's modules among them, which all test modules together have imported."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files stay whole. xdist's own groups (3.8) are lost on pytest 9.2, which keeps node ids."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            if file.endswith("methods/test_matrix.py"):
                return nodeid.rpartition("-")[0]  # A network's steps share its training.
            if file.endswith("e2e/test_shipped.py"):
                return nodeid  # They share nothing.
            return "emulated" if file.endswith(ON_THE_EMULATED_PI) else file

    return ByFile(config, log)


def converters_own(model: Any, **settings: Any) -> bytes:
    """The sparse file that TensorFlow's converter itself makes; `settings` of the converter."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    for name, value in settings.items():
        setattr(converter, name, value)
    return bytes(converter.convert())


@pytest.fixture(scope="session")
def sparse_dense_layer():
    """A trained-looking Keras model: 512 -> 512 -> 10 with half of the first kernel zero."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((512,)),
            # The converter leaves out a bias of zeros.
            layers.Dense(512, "relu", bias_initializer="random_normal", name="wide"),
            layers.Dense(10, "softmax", bias_initializer="random_normal", name="classifier"),
        ]
    )
    random = np.random.default_rng(1)
    kernel = model.get_layer("wide").kernel
    kernel.assign(kernel * (random.random(kernel.shape) < 0.5))
    return model


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    return np.random.default_rng(2).random((16, 512), dtype=np.float32)


@pytest.fixture(scope="session")
def tflite_files(sparse_dense_layer, samples, tmp_path_factory) -> dict[str, Path]:
    """dense.tflite, sparse.tflite and int8.tflite of `sparse_dense_layer`."""
    from edgesparse.tflite.convert import convert

    folder = tmp_path_factory.mktemp("tflite")
    made = {
        "dense": convert(sparse_dense_layer, "f32", samples),
        "sparse": converters_own(sparse_dense_layer),
        "int8": convert(sparse_dense_layer, "int8", samples),
    }
    for name, content in made.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in made}


@pytest.fixture(scope="session")
def crashing_model(tflite_files, tmp_path_factory) -> Path:
    """A file that can be read, but says that its softmax gives text: both runtimes segfault."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = tflite_files["dense"].read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    graph.tensors[graph.outputs[0]].type = schema.TensorType.STRING
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path_factory.mktemp("crash") / "crash.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path
