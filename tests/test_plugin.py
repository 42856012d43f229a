"""What another package adds by entry points: named in YAML like what is built in."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.tools.commands import run_program

pytestmark = pytest.mark.slow
PIPELINE = """
name: plugged
data: {name: stripes}
model: {name: perceptron, args: {width: 8}}
train: {epochs: 5, batch_size: 16, learning_rate: 1.0e-2}
tracking: {name: lines, uri: runs.txt}
variants:
  dense-f32: {}
  lottery-f32: {sparsify: {method: lottery, args: {sparsity: 0.5}, epochs: 1}}
benchmark: {rounds: 1, min_seconds: 0.05, min_runs: 5, warmup_runs: 2, warmup_seconds: 0}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the installed package."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(ROOT / "tests" / "plugin", source)
    folder = tmp_path_factory.mktemp("site")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(source)], check=True)
    return folder


THERE = """
name: there
connect: {plugin: {name: loopback, args: {folder: inner}}}
workdir: WORKDIR
install: system
runtimes: [ai-edge-litert]
"""


def test_a_package_adds_methods_data_models_layers_transports_reports_and_trackers(site, tmp_path):
    (tmp_path / "devices").mkdir()
    there = THERE.replace("WORKDIR", str(tmp_path / "workdir"))
    (tmp_path / "devices" / "there.yaml").write_text(there)
    (tmp_path / "devices" / "wrong.yaml").write_text(there.replace("folder", "folders"))
    (tmp_path / "p.yaml").write_text(PIPELINE)

    def edgesparse(*words, with_plugin=True):
        environment = {"PYTHONPATH": str(site)} if with_plugin else {}
        return run_program(*words, cwd=tmp_path, **environment)

    assert edgesparse("validate", "p.yaml").returncode == 0
    without = edgesparse("validate", "p.yaml", with_plugin=False)
    assert without.returncode == 2
    assert "unknown method 'lottery'" in without.stderr
    assert "Traceback" not in without.stderr
    wrong = edgesparse("validate", "devices/wrong.yaml")
    assert "loopback has no argument 'folders'; did you mean 'folder'?" in wrong.stderr
    wrong = edgesparse("validate", "devices/there.yaml", with_plugin=False)
    assert "unknown transport 'loopback'" in wrong.stderr
    done = edgesparse("deploy", "p.yaml", "--device", "there")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "workdir" / "inner").is_dir()
    assert len((tmp_path / "runs.txt").read_text().splitlines()) == 1
    listed = edgesparse("report", "--format", "names")
    assert listed.stdout.split() == ["dense-f32", "lottery-f32"]
    unknown = edgesparse("report", "--format", "naems")
    assert unknown.returncode == 2
    assert "unknown report 'naems'; did you mean 'names'?" in unknown.stderr
    # Its code is in the keys.
    layer = site / "edgesparse_example" / "scale.py"
    source = layer.read_text()
    layer.write_text(source.replace("ones", "zeros"))
    planned = json.loads(edgesparse("plan", "p.yaml", "--json").stdout)
    assert not {s["label"]: s["cached"] for s in planned["stages"]}["train"]
    layer.write_text(source)
    method = site / "edgesparse_example" / "lottery.py"
    method.write_text(method.read_text().replace("default_rng(0)", "default_rng(1)"))
    planned = json.loads(edgesparse("plan", "p.yaml", "--json").stdout)
    cached = {stage["label"]: stage["cached"] for stage in planned["stages"]}
    assert not cached["sparsify lottery-f32"]
    assert cached["train"]
