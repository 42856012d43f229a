import os

import numpy as np

from edgesparse.graph.digests import digests
from edgesparse.spec.reading.load import load_pipeline

TEXT = """
name: p
data: {name: npz, args: {path: d.npz}}
model: {ref: "mine.py:build"}
variants: {a: {}, b: {sparsify: {method: "mine.py:prune"}}}
"""


def write(folder):
    np.savez(folder / "d.npz", x=np.zeros((2, 2)), y=np.zeros(2, int))
    (folder / "mine.py").write_text("def build():\n    pass\ndef prune(model):\n    return model\n")
    (folder / "p.yaml").write_text(TEXT)
    return load_pipeline(folder / "p.yaml")


def test_content_counts_and_nothing_else(tmp_path):
    first = digests(write(tmp_path))
    assert set(first) == {"data", "model", "sparsify b 0"}
    os.utime(tmp_path / "d.npz", (1, 1))
    assert digests(load_pipeline(tmp_path / "p.yaml")) == first
    np.savez(tmp_path / "d.npz", x=np.ones((2, 2)), y=np.zeros(2, int))
    changed = digests(load_pipeline(tmp_path / "p.yaml"))
    assert changed["data"] != first["data"]
    assert changed["model"] == first["model"]
    with (tmp_path / "mine.py").open("a") as file:
        file.write("# changed\n")
    assert digests(load_pipeline(tmp_path / "p.yaml"))["model"] != first["model"]
