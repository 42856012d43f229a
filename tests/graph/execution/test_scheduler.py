"""The walk over a plan: side by side it makes the same, and every stage comes after its inputs."""

import json

import pytest

import edgesparse
from edgesparse.graph import events
from edgesparse.graph.store import MANIFEST
from edgesparse.spec.reading.load import parse_pipeline
from tests.conftest import HERE, TINY

pytestmark = [pytest.mark.slow, pytest.mark.full]

WIDER = TINY.replace("benchmark:", "  dense-int8: {quantize: int8}\nbenchmark:")


@pytest.fixture(scope="module")
def made(tmp_path_factory, workers):
    """The same pipeline by one process and by two: what was told, and what is stored."""

    def make(jobs):
        folder = tmp_path_factory.mktemp(f"jobs{jobs}")
        (folder / "devices").mkdir()
        (folder / "devices" / "here.yaml").write_text(
            HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
        )
        received = []
        with edgesparse.Project(
            folder, jobs=jobs, listener=received.append, workers=workers if jobs == 1 else None
        ) as project:
            loaded = parse_pipeline(WIDER, str(folder / "tiny.yaml"))
            project.deploy(loaded, ["here"], benchmark=False)
        return folder, received

    return make(1), make(2)


def artifacts(folder):
    result = {}
    for manifest in (folder / ".edgesparse" / "store").glob(f"*/{MANIFEST}"):
        about = json.loads(manifest.read_text())
        result[about["key"]] = about
    return result


def running(received):
    """How many stages of the plan ran at each moment."""
    now, most = set(), 0
    for event in received:
        if isinstance(event, events.StageStarted):
            now.add(event.label)
        elif isinstance(event, events.StageDone | events.StageFailed):
            now.discard(event.label)
        most = max(most, len(now))
    return most


def test_two_run_side_by_side_where_nothing_waits(made):
    (_, _), (_, received) = made
    # Two that train or convert, and beside them one that asks the device.
    assert 2 <= running(received) <= 3


def test_each_comes_after_its_inputs(made):
    for folder, received in made:
        expected = {about["label"]: about for about in artifacts(folder).values()}
        ended = set()
        for event in received:
            if isinstance(event, events.StageStarted) and event.label in expected:
                assert set(expected[event.label]["inputs"].values()) <= ended
            elif isinstance(event, events.StageDone) and event.label in expected:
                ended.add(expected[event.label]["key"])


def test_side_by_side_makes_the_same(made):
    (item, _), (two, _) = made
    first, second = artifacts(item), artifacts(two)
    assert first.keys() == second.keys()
    models = 0
    for key, about in first.items():
        for name, file in about["files"].items():
            if name.endswith(".tflite"):
                assert file["sha256"] == second[key]["files"][name]["sha256"]
                models += 1
    assert models >= 4


def test_numbers_go_up_and_end_with_the_last(made):
    for _, received in made:
        places = [e.number for e in received if isinstance(e, events.StageStarted) and e.total > 1]
        assert places == sorted(places)
        totals = {e.total for e in received if isinstance(e, events.StageDone) and e.total > 1}
        assert totals == {max(e.number for e in received if isinstance(e, events.StageDone))}
