"""A pipeline on a device with an Edge TPU: its server, runtime and delegate are real, the chip and
the compiler are stand-ins (see tests/tools/edgetpu.py)."""

from functools import partial

import pytest
from rich.console import Console

from edgesparse import Project
from edgesparse.devices.setup import runtimes
from edgesparse.devices.transport.platform import probe
from edgesparse.graph import events
from edgesparse.report.terminal import print_results
from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import load_pipeline, parse_device
from tests.conftest import TINY
from tests.devices.test_edgetpu import plug_in
from tests.tools.commands import warm_workers
from tests.tools.edgetpu import VERSION, make_compiler, make_library
from tests.tools.sshd import ssh_server

pytestmark = pytest.mark.slow
VARIANTS = """
  dense-int8: {quantize: int8}
  sparse-int8:
    sparsify: {method: magnitude, sparsity: 0.5, pattern: block-1x16, epochs: 1}
    quantize: int8
benchmark:"""


@pytest.fixture
def loaded(tmp_path, shared_store):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("\nbenchmark:", VARIANTS))
    return load_pipeline(path)


@pytest.fixture
def board(tmp_path):
    with ssh_server(tmp_path / "sshd") as server:
        yield server


def coral(board, edgetpu):
    return parse_device(f"{board.device_yaml('coral')}delegate: edgetpu\nedgetpu: {edgetpu}\n").spec


def run(loaded, device, tmp_path, **options):
    heard = []
    with Project(tmp_path, listener=heard.append, workers=warm_workers()) as project:
        results = project.deploy(loaded, [device], **options)
    return {row.variant: row for row in results.rows}, results, heard


def test_full_int8_variants_are_compiled_verified_measured_and_released(
    loaded, board, tmp_path, monkeypatch
):
    plug_in(tmp_path / "root")
    monkeypatch.setattr(runtimes, "probe", partial(probe, root=str(tmp_path / "root")))
    library, compiler = make_library(tmp_path / "lib"), make_compiler(tmp_path / "bin")
    trace = tmp_path / "trace"
    given = (
        f"{{compiler: {{local: {{command: {compiler}}}}}, library: {library}, "
        f"options: {{trace: {trace}}}}}"
    )
    rows, results, _ = run(loaded, coral(board, given), tmp_path)
    assert list(rows) == ["dense-int8", "sparse-int8"]
    for row in rows.values():
        assert row.status == "ok", row.error
        assert (row.delegate, row.model.storage) == ("edgetpu", "edgetpu")
        assert row.edgetpu.compiler == VERSION
        assert 0 < row.edgetpu.mapped_operators < row.edgetpu.operators
        assert row.edgetpu.cpu_accuracy == row.score.device == row.score.host
        assert row.edgetpu.source_sha256 != row.model.sha256
        assert row.speedup.baseline == "dense-int8"
        assert any(note.startswith("Edge TPU: ") for note in row.notes)
    assert rows["sparse-int8"].model.sparsity > 0.4
    assert any("left out: the Edge TPU requires full int8" in note for note in results.notes)
    # Every process on the device had the options: check and rounds of each, and the release's.
    assert trace.read_text().count(f"trace={trace}") > 4
    (release,) = results.releases
    assert release.variant in rows
    console = Console(record=True, width=100)
    print_results(results, console)
    assert "delegate edgetpu" in console.export_text()


@pytest.mark.full
def test_without_a_compiler_rows_are_the_cpus_and_say_so(loaded, board, tmp_path):
    rows, results, _ = run(loaded, coral(board, "{compiler: none}"), tmp_path)
    assert {row.delegate for row in rows.values()} == {"xnnpack"}
    assert {row.status for row in rows.values()} == {"ok"}
    assert any("measured on the CPU" in note for note in results.notes)


def test_a_missing_compiler_fails_the_rows_and_says_what_to_do(
    loaded, board, tmp_path, monkeypatch
):
    plug_in(tmp_path / "root")
    monkeypatch.setattr(runtimes, "probe", partial(probe, root=str(tmp_path / "root")))
    given = "{compiler: {local: {command: no-compiler}}}"
    rows, _, heard = run(loaded, coral(board, given), tmp_path)
    assert {row.status for row in rows.values()} == {"failed"}
    assert all("install edgetpu_compiler" in row.error for row in rows.values())
    # Before anything is trained.
    first = next(event for event in heard if isinstance(event, events.Note | events.StageStarted))
    assert "coral: the Edge TPU compiler is not available" in first.text


def test_nothing_full_int8_is_said_before_any_work(loaded, board, tmp_path):
    with pytest.raises(UsageError, match="requires full int8"):
        run(loaded, coral(board, "{}"), tmp_path, variants=("dense-f32",))
