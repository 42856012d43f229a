import json
import subprocess
import sys

import pytest

from edgesparse.measure.results import (
    SCHEMA_VERSION,
    DeviceInfo,
    Results,
    read_results,
    schema_text,
    write_results,
)
from edgesparse.measure.rows import Latency, Row, RuntimeInfo
from edgesparse.spec.errors import UsageError
from tests.tools.results_reference import REFERENCE, SCHEMA, reference

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
        ("{", "invalid results file"),
        ("[]", "invalid results file"),
        ('{"run": 3}', "invalid results file"),
        (json.dumps({**EMPTY.model_dump(), "schema_version": 99}), "written by a later edgesparse"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_results(path)
    with pytest.raises(UsageError, match="run not found"):
        read_results(tmp_path / "none.json")


def test_results_of_an_earlier_schema_are_listed_and_not_read(tmp_path, cli):
    for number, version in enumerate((2, SCHEMA_VERSION)):
        run = EMPTY.model_copy(update={"run": f"r{number}", "schema_version": version})
        write_results(run, tmp_path / ".edgesparse" / "runs" / run.run / "results.json")
    listed = cli("report", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "written by an earlier edgesparse (schema 2)" in " ".join(listed.stdout.split())
    for words in (("report", "r0"), ("compare", "r0", "r1")):
        done = cli(*words)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "schema 2); run the pipeline again" in done.stderr


def test_the_reference_and_the_schema_are_those_of_the_models():
    assert SCHEMA.read_text() == schema_text() + "\n", "run 'make schemas'"
    assert REFERENCE.read_text() == reference(REFERENCE.read_text()), "run 'make schemas'"


def row(device, variant, p50):
    latency = Latency(
        p50=p50, p90=p50, p99=p50, mean=p50, std=0, samples=10, rounds=1, ci95=(p50, p50)
    )
    return Row(
        pipeline="p",
        device=device,
        runtime=RuntimeInfo(name="ai-edge-litert", version="2.1.6"),
        delegate="xnnpack",
        threads=1,
        clock="wall",
        variant=variant,
        status="ok",
        latency_ms=latency,
    )


def measured(*devices):
    rows = [row(d, v, ms) for d in devices for v, ms in (("a", 2.0), ("b", 1.0), ("c", 3.0))]
    infos = [DeviceInfo(name=d, description="") for d in devices]
    return EMPTY.model_copy(update={"devices": infos, "rows": rows})


def test_the_best_of_a_device():
    assert measured("pi").best().variant == "b"
    assert measured("pi", "tpu").best("tpu").device == "tpu"
    with pytest.raises(UsageError, match="several devices; choose one of: pi, tpu"):
        measured("pi", "tpu").best()
    with pytest.raises(UsageError, match="no device 'pie' in run r; choose one of: pi"):
        measured("pi").best("pie")
    failed = row("pi", "a", 1.0).model_copy(update={"status": "failed"})
    assert measured("pi").model_copy(update={"rows": [failed]}).best() is None


def test_rows_as_a_data_frame():
    frame = measured("pi").to_frame()
    assert list(frame["variant"]) == ["a", "b", "c"]
    assert frame.set_index("variant")["latency_ms.p50"]["b"] == 1.0
    assert frame.loc[0, "runtime.name"] == "ai-edge-litert"


def test_a_data_frame_without_pandas_says_what_to_install():
    script = (
        "import sys; sys.modules['pandas'] = None\n"
        "from tests.measure.test_results import EMPTY\n"
        "from edgesparse import EdgesparseError\n"
        "try: EMPTY.to_frame()\n"
        "except EdgesparseError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "to_frame needs pandas, which is not installed: pip install pandas\n"
