import json
import subprocess
import sys

import pytest

from edgesparse.measure.results import DeviceInfo, Results, read_results, write_results
from edgesparse.measure.rows import Latency, Row, RuntimeInfo
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
    with pytest.raises(UsageError, match="name one of the devices; there: pi, tpu"):
        measured("pi", "tpu").best()
    with pytest.raises(UsageError, match="no device 'pie' in run r; there: pi"):
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
    assert done.stdout == "a data frame needs pandas, which is not installed: pip install pandas\n"
