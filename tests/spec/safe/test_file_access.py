"""Whatever reads a file of the project, it is noticed; see also tests/e2e/test_own_parts.py."""

import os
import subprocess
import sys
import textwrap

import pytest

from edgesparse.devices.transport.workdir import MARKER
from edgesparse.spec.safe import file_access
from edgesparse.spec.safe.file_access import WRITTEN, Watch, changed

READERS = {
    "a.txt": "open('a.txt').read()",
    "a.json": "import json, pathlib; json.loads(pathlib.Path('a.json').read_text())",
    "a.npy": "import numpy as np; np.load('a.npy')",
    "m.npy": "import numpy as np; np.load('m.npy', mmap_mode='r').sum()",
    "a.npz": "import numpy as np; np.load('a.npz')['x']",
    "a.h5": "import h5py; h5py.File('a.h5')['x'][:]",
    "kept.h5": "import h5py; f = h5py.File('kept.h5'); f['x'][:]; import os; os._exit(0)",
    "a.db": "import sqlite3; sqlite3.connect('a.db').execute('select * from t').fetchall()",
    "a.csv": "import pandas; pandas.read_csv('a.csv', engine='c')",
    "m.csv": "import pandas; pandas.read_csv('m.csv', memory_map=True)",
    "a.png": "from PIL import Image; Image.open('a.png').load()",
    "a.wav": "import wave; wave.open('a.wav').readframes(1)",
    "gfile.txt": "import tensorflow as tf; tf.io.gfile.GFile('gfile.txt').read()",
    "read.bin": "import tensorflow as tf; tf.io.read_file('read.bin')",
    "lines.txt": "import tensorflow as tf; list(tf.data.TextLineDataset('lines.txt'))",
    "a.tfrecord": "import tensorflow as tf; list(tf.data.TFRecordDataset('a.tfrecord'))",
    "model.keras": "import tensorflow as tf; tf.keras.models.load_model('model.keras')",
    "model.h5": "import tensorflow as tf; tf.keras.models.load_model('model.h5')",
    "saved": "import tensorflow as tf; tf.saved_model.load('saved')",
    "w.weights.h5": (
        "import tensorflow as tf; layers = [tf.keras.Input((2,)), tf.keras.layers.Dense(2)];"
        "tf.keras.Sequential(layers).load_weights('w.weights.h5')"
    ),
    "checkpoint.index": "import tensorflow as tf; tf.train.load_checkpoint('checkpoint')",
    "helper.py": "import importlib, sys; sys.path.append('.'); importlib.import_module('helper')",
}
TENSORFLOW = [name for name, code in READERS.items() if "tensorflow" in code]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of each format."""
    import sqlite3
    import wave

    import h5py
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    folder = tmp_path_factory.mktemp("formats")
    for name in ("a.txt", "gfile.txt", "read.bin", "lines.txt", "unread.txt"):
        (folder / name).write_text("1\n")
    (folder / "a.json").write_text("1")
    (folder / "helper.py").write_text("VALUE = 1\n")
    for name in ("a.npy", "m.npy"):
        np.save(folder / name, np.ones(10))
    np.savez(folder / "a.npz", x=np.ones(10))
    for name in ("a.h5", "kept.h5"):
        with h5py.File(folder / name, "w") as file:
            file["x"] = np.ones(10)
    with sqlite3.connect(folder / "a.db") as base:
        base.execute("create table t (x)")
    for name in ("a.csv", "m.csv"):
        (folder / name).write_text("a,b\n1,2\n")
    Image.new("L", (2, 2)).save(folder / "a.png")
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(20))
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as file:
        file.write(b"1")
    keras = tf.keras
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "w.weights.h5")
    tf.saved_model.save(model, str(folder / "saved"))
    tf.train.Checkpoint(model=model).write(str(folder / "checkpoint"))
    return folder


def read_by(folder, *codes):
    """What a process of its own is seen to read."""
    watch = Watch([folder], lambda _: False)
    try:
        for code in codes:
            done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True)
            assert done.returncode == 0, done.stderr
        return watch.reads(folder)
    finally:
        watch.close()


@pytest.mark.parametrize("name", [name for name in READERS if name not in TENSORFLOW])
def test_a_file_that_is_read_is_noticed(folder, name):
    reads = read_by(folder, READERS[name])
    assert [path for path in reads if "*" not in path] == [name]
    assert changed(reads, folder) is None
    path = folder / name
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + b"\7")
        assert changed(reads, folder) == name
        path.unlink()
        assert changed(reads, folder) == name
    finally:
        path.write_bytes(content)


@pytest.mark.slow
def test_so_are_those_that_tensorflow_reads(folder):
    code = "\n".join(READERS[name] for name in TENSORFLOW)
    reads = read_by(folder, code)
    for name in TENSORFLOW:
        inside = [path for path in reads if path == name or path.startswith(f"{name}/")]
        assert inside, name
    assert "unread.txt" not in reads


def test_another_file_of_a_kind_that_is_listed_is_noticed(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.png").write_bytes(b"1")
    reads = read_by(tmp_path, "import glob; [open(p).read() for p in glob.glob('images/*.png')]")
    assert set(reads) == {"images/1.png", "images/*.png"}
    (images / "notes.md").write_text("of no interest")
    assert changed(reads, tmp_path) is None
    (images / "2.png").write_bytes(b"2")
    assert changed(reads, tmp_path) == "images/*.png"


def test_what_is_only_written_is_no_input(tmp_path):
    for name in ("log.csv", "log.txt"):
        (tmp_path / name).write_text("1\n")
    code = """
        open("log.csv", "w").write("only written")
        open("new.txt", "w").write("new")
        open("new.txt").read()
        log = open("log.txt", "a+")
        log.seek(0)
        log.read()
        log.write("grows")
    """
    reads = read_by(tmp_path, textwrap.dedent(code))
    assert "log.csv" not in reads
    assert {path for path in reads if "*" not in path} <= {"new.txt", "log.txt"}


@pytest.mark.parametrize("change", ["written", "replaced", "removed"])
def test_what_changes_after_it_was_read_counts_as_changed(tmp_path, change):
    weights = tmp_path / "weights.h5"
    weights.write_text("1")
    watch = Watch([tmp_path], lambda _: False)
    weights.read_text()
    assert set(watch.reads(tmp_path)) == {"weights.h5"}
    if change == "written":
        weights.write_text("")
    elif change == "replaced":
        (tmp_path / "other").write_text("1")
        os.replace(tmp_path / "other", weights)
    else:
        weights.unlink()
    assert watch.reads(tmp_path) == {"weights.h5": WRITTEN}
    assert changed({"weights.h5": WRITTEN}, tmp_path) == "weights.h5"
    watch.close()


def test_what_is_read_between_calls_does_not_count(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("1")
    watch = Watch([tmp_path], lambda _: False)
    (tmp_path / "a.txt").read_text()
    watch.pause()
    (tmp_path / "b.txt").read_text()
    (tmp_path / "a.txt").write_text("1")
    watch.resume(lambda _: False)
    assert set(watch.reads(tmp_path)) == {"a.txt"}
    watch.close()


def test_where_nothing_can_be_watched_every_file_counts(folder, monkeypatch):
    monkeypatch.setattr(file_access.sys, "platform", "darwin")
    watch = Watch([folder], lambda path: path.name == "a.txt")
    assert "does not report which files are read: a change of any file" in watch.notice
    reads = watch.reads(folder)
    watch.close()
    assert {"unread.txt", "saved/saved_model.pb", "helper.py"} <= set(reads)
    assert "a.txt" not in reads


def test_documents_are_not_watched(tmp_path):
    for name in ("README.md", "notes.ipynb", "run.log"):
        (tmp_path / name).write_text("x")
    reads = read_by(tmp_path, "[open(n).read() for n in ('README.md', 'notes.ipynb', 'run.log')]")
    assert reads == {}


def test_hidden_folders_and_environments_are_not_watched(tmp_path):
    for place in (".git", ".edgesparse/store", "venv/lib", "node_modules", "work/x", "data/deep"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.bin").write_bytes(b"x")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = x\n")
    (tmp_path / "work" / MARKER).touch()
    code = "import pathlib; [p.read_bytes() for p in pathlib.Path('.').rglob('x.bin')]"
    reads = read_by(tmp_path, code)
    assert {os.path.dirname(path) for path in reads if "*" not in path} == {"data/deep"}


def test_only_the_nearest_of_many_folders_are_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(file_access, "MOST_FOLDERS", 3)
    for name in ("a/b/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    watch = Watch([tmp_path], lambda _: False)
    assert "has more than 3 folders" in watch.notice
    (tmp_path / "a" / "x.bin").write_bytes(b"1")
    (tmp_path / "a" / "x.bin").read_bytes()
    assert "a/x.bin" in watch.reads(tmp_path)
    watch.close()
