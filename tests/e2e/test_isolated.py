"""Modules in the current folder, here and in a device's home, are data: no command runs them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import HERE, TINY
from tests.tools.sshd import ssh_server

pytestmark = pytest.mark.slow
MODULES = (
    "json", "numpy", "platform", "lzma", "venv", "runpy", "tensorflow", "types", "typing",
    "tempfile", "ai_edge_litert", "pip", "edgesparse", "sitecustomize", "usercustomize", "fcntl",
)  # fmt: skip


def plant(folder, proof, modules=MODULES):
    """Modules that write their names to `proof` where they are run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in modules:
        text = f"open({str(proof)!r}, 'a').write(__file__ + '\\n')\n"
        (folder / f"{name}.py").write_text(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory, made):
    """A folder with a model, a device behind a real OpenSSH server, and planted modules in both."""
    folder = tmp_path_factory.mktemp("isolated")
    home, proof = folder / "home", folder / "proof"
    plant(home, proof)
    # A login shell begins at home; the one of whoever runs the tests is not touched.
    at_home = f'ForceCommand cd {home} && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    with ssh_server(folder / "sshd", [at_home]) as server:
        work = folder / "work"
        plant(work, proof)
        (work / "devices").mkdir()
        (work / "devices" / "here.yaml").write_text(HERE)
        (work / "devices" / "board.yaml").write_text(server.device_yaml())
        installed = server.device_yaml("installed").replace("install: system", "install: venv")
        place = f"workdir: {folder}/installed"
        installed = installed.replace(f"workdir: {server.workdir}", place)
        (work / "devices" / "installed.yaml").write_text(installed)
        # With code of its own, which finds what lies beside it.
        (work / "beside.py").write_text("WIDTH = 32\n")
        (work / "mine.py").write_text(
            "import beside\nimport numpy as np\nimport tensorflow as tf\n"
            "def build():\n"
            "    layers = tf.keras.layers\n"
            "    assert np.zeros(3).shape == (3,)\n"
            "    return tf.keras.Sequential([tf.keras.Input((8, 8, 1)), layers.Flatten(),\n"
            "        layers.Dense(beside.WIDTH), layers.Dense(10, 'softmax')])\n"
        )
        (work / "tiny.yaml").write_text(TINY)
        own = TINY.replace("name: tiny", "name: own").replace(
            "{name: mlp, args: {input_shape: [8, 8, 1], classes: 10, widths: [32]}}",
            "{ref: 'mine.py:build'}",
        )
        assert "mine.py" in own
        (work / "own.yaml").write_text(own)
        (work / "model.tflite").write_bytes(tiny_model())
        shutil.copytree(made / ".edgesparse" / "store", work / ".edgesparse" / "store")
        yield work
    assert not proof.exists(), proof.read_text()


def command(project, *words, start=None):
    """As a user types it; the error where a module was run."""
    program = start or [str(Path(sys.executable).with_name("edgesparse"))]
    done = subprocess.run(
        [*program, *words],
        cwd=project,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    proof = project.parent / "proof"
    assert not proof.exists(), proof.read_text()
    return done


@pytest.mark.parametrize(
    "words",
    [
        "device check board",
        "bench model.tflite --device board --quick",
        "bench model.tflite --device here --quick",
        pytest.param("inspect model.tflite --device board", marks=pytest.mark.full),
        "encode model.tflite out.tflite",
        "plan tiny.yaml --device board",
        "deploy own.yaml --device here --quick --jobs 1 --variant dense-f32",
        pytest.param("sensitivity tiny.yaml --device here", marks=pytest.mark.full),
    ],
)
def test_modules_in_the_current_folder_are_not_run(project, words):
    done = command(project, *words.split())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.mark.full
def test_nor_by_a_set_up_with_wheels(project):
    done = command(project, "device", "setup", "installed")
    assert done.returncode == 0, done.stderr
    done = command(project, "bench", "model.tflite", "--device", "installed", "--quick")
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_nor_by_a_release_in_use(project, tmp_path):
    import numpy as np

    for words in ("deploy tiny.yaml --device board --quick", "device releases board tiny"):
        done = command(project, *words.split())
        assert done.returncode == 0, done.stderr
    (place,) = (project.parent / "sshd" / "workdir").glob("releases/tiny/current/predict.py")
    np.save(tmp_path / "x.npy", np.zeros((8, 8, 1), np.float32))
    done = command(project, str(place), str(tmp_path / "x.npy"), start=[sys.executable])
    assert done.returncode == 0, done.stderr


def test_nor_by_python_m(project, tmp_path):
    """What Python imports before it comes to us is not ours to choose: edgesparse.py among it."""
    early = ("edgesparse", "types", "typing", "runpy")
    plant(tmp_path, project.parent / "proof", [name for name in MODULES if name not in early])
    shutil.copy(project / "model.tflite", tmp_path)
    start = [sys.executable, "-m", "edgesparse"]
    done = subprocess.run(
        [*start, "encode", "model.tflite", "out.tflite"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (project.parent / "proof").exists(), (project.parent / "proof").read_text()
