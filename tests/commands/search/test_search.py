"""A whole search on this machine: interrupted, gone on with, told, written."""

import json

import pytest
import yaml

import edgesparse
from edgesparse.commands.search import search as searching
from edgesparse.graph import events
from edgesparse.report.formats import json_text
from edgesparse.report.page.overview import write_search
from edgesparse.report.trials import print_search
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Variant
from tests.conftest import HERE, TINY

SEARCH = """
search:
  objectives: [accuracy, bytes]
  constraints: [{metric: bytes, max: 100000}]
  parallel_trials: 2
  variant:
    sparsify:
      choice:
        - {method: magnitude, sparsity: {range: [0.3, 0.9], step: 0.3}, epochs: 1}
        - {method: one-shot, sparsity: 0.7, exclude: ['*']}
    quantize: {choice: [f32, int8]}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "devices").mkdir()
    here = HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
    (folder / "devices" / "here.yaml").write_text(here)
    (folder / "tiny.yaml").write_text(TINY + SEARCH)
    return folder


@pytest.fixture
def swept(project, workers, shared_store):
    def search(trials, listener=events.null_listener, name="tiny"):
        with edgesparse.Project(project, listener=listener, workers=workers) as opened:
            return opened.search(project / f"{name}.yaml", "here", trials=trials)

    return search


@pytest.mark.full
@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_finds_what_a_whole_one_does(project, swept, capsys):
    seen = []

    def interrupt(event):
        seen.append(event)
        if isinstance(event, events.StageStarted) and event.label.startswith("sparsify trial-003"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(6, interrupt)
    found, folder = swept(6)
    trials = [trial for trial in found.trials if trial.number is not None]
    assert [trial.number for trial in trials] == list(range(6))
    named = [trial.name for trial in found.trials if trial.number is None]
    assert named == ["dense-f32", "sparse-f32"]
    # The references are not measured again, and nothing that is made is made twice.
    again, _ = swept(6, seen.append)
    assert again == found
    # What could not be made says why, and the front keeps the limits.
    for trial in trials:
        if trial.variant["sparsify"]["method"] == "one-shot":
            assert trial.status == "failed"
            assert trial.reason
    assert found.front
    kept = yaml.safe_load((folder / searching.FRONT).read_text())["variants"]
    assert list(kept) == [trial.name for trial in found.front]
    for variant in kept.values():
        Variant.model_validate(variant)
    # A run of its own has all rows, the baseline once.
    results = edgesparse.load_results(project=project)
    assert json.loads(json_text(results))["pipeline"] == "tiny"


@pytest.mark.slow
def test_what_is_beyond_a_limit_is_not_measured(project, swept):
    """By what this machine knows: answers, and the file's size."""
    path = project / "tight.yaml"
    text = (TINY + SEARCH).replace("max: 100000", "max: 4000").replace("name: tiny", "name: tight")
    path.write_text(text)
    found, _ = swept(4, name="tight")
    over = [
        trial for trial in found.trials if trial.number is not None and trial.status == "infeasible"
    ]
    assert over
    for trial in over:
        assert trial.reason == "bytes beyond the constraint: not measured"
        assert trial.row.latency_ms is None
    measured = {row.variant for row in edgesparse.load_results(project=project).rows}
    assert not measured & {trial.name for trial in over}


@pytest.mark.slow
def test_it_is_shown(swept, tmp_path):
    import io

    from rich.console import Console

    found, _ = swept(6)
    out = io.StringIO()
    print_search(found, Console(file=out, width=100))
    text = out.getvalue()
    assert "6 trials, maximize accuracy, minimize bytes" in text
    assert "selected on" in text
    page = write_search(found, tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1
    assert "trial-000" in page


def test_a_pipeline_without_a_search_says_so(cli, tmp_path):
    (tmp_path / "p.yaml").write_text(TINY)
    done = cli("search", "p.yaml")
    assert done.returncode == 2
    assert "'search' is missing" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study.db", "references.json"])
@pytest.mark.parametrize("content", [b"", b"[1", b"\xff\xfe", b"[{}]"])
def test_what_is_damaged_is_said_before_anything_runs(project, swept, name, content):
    if not list(project.glob(".edgesparse/searches/*/references.json")):
        swept(1)
    whole = {path: path.read_bytes() for path in project.glob(f".edgesparse/searches/*/{name}")}
    for path in whole:
        path.write_bytes(content)
    heard = []
    try:
        if (name, content) != ("study.db", b""):  # That is how SQLite's files begin.
            with pytest.raises(UsageError, match=f"{name}: cannot be used: .*remove "):
                swept(1, heard.append)
        assert not heard
    finally:
        for path, kept in whole.items():
            path.write_bytes(kept)
