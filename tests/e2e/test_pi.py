"""An emulated Raspberry Pi 5 that is up: what is measured on it, released to it and asked of it.
test_emulated.py has the long runs."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgesparse.commands.fleet.target import open_target
from edgesparse.delegate import library
from edgesparse.devices.agent.events import Failed
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import round_medians, run_job
from edgesparse.devices.transport.interface import upload
from edgesparse.spec.reading.load import find_device
from tests.conftest import TINY
from tests.e2e.conftest import board_up
from tests.tflite.runtimes.clusters import RECIPES, both_forms
from tests.tools import delegate_guest
from tests.tools.int8_model import Zeros
from tests.tools.random_nodes import random_case
from tests.tools.sparse_networks import mobilenet_v1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SETTINGS = Settings(1, 0.0, 2, 0.0, 300.0)
RUNTIMES = ("tflite-runtime", "ai-edge-litert")


def shell(project, command, timeout=600):
    done = project.shell(f".venv/bin/edgesparse {command}", timeout)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done


@pytest.fixture(scope="module")
def pi(project, emulator_tools):
    """The project in which it is up; the image is built where there is none yet."""
    with board_up(project, "pi5-emulated") as done:
        assert "pi5-emulated: up, cortex-a76" in done.stdout
        yield project


def test_zeros_pay_where_the_sparse_path_is_taken(pi, tmp_path, monkeypatch):
    """test_clusters.py has networks in which a layer is in its way."""
    entries = []
    for form, content in zip(("dense", "sparse"), both_forms(RECIPES["taken"]), strict=False):
        path = tmp_path / f"{form}.tflite"
        path.write_bytes(content)
        entries.append(Entry(form, path, "ai-edge-litert", "xnnpack", 1))
    monkeypatch.setenv("HOME", str(pi.folder / "home"))
    device = find_device(pi.folder / "devices" / "pi5-emulated.yaml", pi.folder)
    with closing(open_target(device)) as target:
        events = run_job(target.transport, Job("pi", 1, SETTINGS, tuple(entries)))
    assert not [event for event in events if isinstance(event, Failed)]
    times = {entry: rounds[0] for entry, rounds in round_medians(events).items()}
    assert times["dense"] / times["sparse"] > 1.5


def test_a_deploy_measures_and_releases(pi, shared_store):
    (pi.folder / "tiny.yaml").write_text(TINY)
    done = shell(pi, "deploy tiny.yaml --device pi5-emulated --jobs 1")
    results = pi.results_of(done)
    assert "time = INSTRUCTION COUNT (simulated)" in " ".join(done.stdout.split())
    assert {row.status for row in results.rows} == {"ok"}
    assert {(row.runtime.name, row.variant) for row in results.rows} == {
        (runtime, variant) for runtime in RUNTIMES for variant in ("dense-f32", "sparse-f32")
    }
    assert {row.agreement for row in results.rows} == {1.0}
    (device,) = results.devices
    assert (device.machine, "Cortex-A76" in device.cpu) == ("aarch64", True)
    (release,) = results.releases
    assert release.previous is None
    assert "current" in shell(pi, "device releases pi5-emulated tiny").stdout


def compare_delegate(pi, tmp_path, monkeypatch, seeds):
    """How many random nodes the delegate answers as XNNPACK does there, and which it does not."""
    cases = {}
    for seed in seeds:
        case = random_case(seed)
        cases[str(seed)] = np.frombuffer(case.content, np.uint8)
        cases.update({f"{seed}-{i}": values for i, values in enumerate(case.inputs)})
    np.savez_compressed(tmp_path / "cases.npz", **cases)
    # Of this user's cache: the other home has none.
    files = (Path(delegate_guest.__file__), tmp_path / "cases.npz", library("aarch64"))
    monkeypatch.setenv("HOME", str(pi.folder / "home"))
    device = find_device(pi.folder / "devices" / "pi5-emulated.yaml", pi.folder)
    with closing(open_target(device)) as target:
        transport = target.transport
        uploads = [upload(file, f"{transport.workdir}/files/{file.name}") for file in files]
        transport.put_files(uploads)
        places = [file.target for file in uploads]
        command = [transport.python, *places]
        return {
            isa: transport.run([*command, isa], timeout_seconds=1400).stdout.split()
            for isa in ("dotprod", "neon")
        }


def test_the_delegate_answers_as_xnnpack_does(pi, tmp_path, monkeypatch):
    answers = compare_delegate(pi, tmp_path, monkeypatch, range(20))
    assert answers == {isa: ["20"] for isa in answers}


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_the_delegate_answers_hundreds_of_nodes_as_xnnpack_does(pi, tmp_path, monkeypatch):
    answers = compare_delegate(pi, tmp_path, monkeypatch, range(300))
    assert answers == {isa: ["300"] for isa in answers}


@pytest.mark.full
def test_the_delegate_is_measured_there(pi):
    content = mobilenet_v1(Zeros(0.8), size=64)
    (pi.folder / "sparse.tflite").write_bytes(content)
    both = "--delegate xnnpack --delegate edgesparse"
    done = shell(pi, f"bench sparse.tflite --device pi5-emulated {both}")
    rows = {(row.runtime.name, row.delegate): row for row in pi.results_of(done).rows}
    # Instructions, which are exact.
    assert rows["ai-edge-litert", "edgesparse"].speedup.ratio > 2
    assert rows["tflite-runtime", "edgesparse"].speedup.ratio > 4
    notes = " ".join(rows["ai-edge-litert", "edgesparse"].notes)
    assert "delegate edgesparse runs 27 of 29 nodes; not MEAN (operator not supported)" in notes


@pytest.mark.full
def test_a_check_says_that_both_runtimes_work(pi):
    assert shell(pi, "device check pi5-emulated").stdout.count("a trial model ran") == 2
