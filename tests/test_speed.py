"""Speed, as ratios measured on this machine; run by `make bench`, not by the tests."""

import shutil
import statistics
import subprocess
import sys
import time

import pytest

from edgesparse.pipeline.workspace import Workspace
from tests.conftest import ROOT, run_cli

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3000)]


@pytest.fixture
def project(tmp_path):
    for name in ("pipelines", "devices"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def seconds(*command):
    times = []
    for _ in range(20):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_help_is_quick():
    ratio = seconds(sys.executable, "-m", "edgesparse", "--help") / seconds(
        sys.executable, "-c", "import click"
    )
    print(f"\nedgesparse --help / import click: {ratio:.2f} (at most 2.5)")
    assert ratio <= 2.5


def deploy_seconds(project, pipeline):
    """(everything, the benchmark) in seconds; stderr says how long the benchmark took."""
    start = time.perf_counter()
    done = run_cli("deploy", pipeline, cwd=project, timeout=2000)
    total = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith("benchmark on local: ")]
    return total, float(last[-1].split()[-2])


def test_a_second_deploy_costs_only_its_benchmark(project):
    first, _ = deploy_seconds(project, "pipelines/digits.yaml")
    second, measuring = deploy_seconds(project, "pipelines/digits.yaml")
    share = (second - measuring) / first
    print(f"\nsecond deploy without its benchmark / first deploy: {share:.2%} (under 2 %)")
    assert share < 0.02


def test_block_sparse_kernels_pay(project):
    deploy_seconds(project, "pipelines/digits-mlp.yaml")
    rows = {(r.runtime.name, r.variant): r for r in Workspace(project).results().rows}
    block = rows["ai-edge-litert", "block-1x4-f32"]
    low, high = block.speedup.ci95
    print(f"\nblock-1x4-f32 against dense-f32, ai-edge-litert: {low:.2f}x to {high:.2f}x")
    assert low >= 1.3
