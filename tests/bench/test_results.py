import json

import pytest

from edgesparse.bench.results import Results, read_results, write_results
from edgesparse.spec.errors import UsageError

EMPTY = Results(
    run="r", started="now", host={}, versions={}, pipeline="p", pipeline_digest="", baseline="a"
)


def test_round_trip(tmp_path):
    path = tmp_path / "runs" / "r" / "results.json"
    write_results(EMPTY, path)
    assert read_results(path) == EMPTY
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no results file"),
        ("[]", "is no results file"),
        ('{"run": 3}', "is no results file"),
        (json.dumps({**EMPTY.model_dump(), "schema_version": 99}), "a later edgesparse"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_results(path)
    with pytest.raises(UsageError, match="no such run"):
        read_results(tmp_path / "none.json")
