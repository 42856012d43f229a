import base64
from pathlib import Path

import numpy as np
import pytest

from edgesparse.devices.agent.events import Answers, Check, CpuState, Failed, Round
from edgesparse.devices.agent.sample_files import save_golden, save_samples
from edgesparse.measure.benchmark import QUICK, Candidate, _chance_warnings, build_job, build_rows
from edgesparse.measure.evaluation import read_evaluator
from edgesparse.measure.gates import check_gates
from edgesparse.measure.rows import ModelFile, RuntimeInfo, Score
from edgesparse.spec.pipeline import Benchmark, Gate
from edgesparse.tflite.verify import Limits

RUNTIME = RuntimeInfo(name="ai-edge-litert", version="1")
MODEL = ModelFile(
    sha256="0", bytes=10, bytes_gzip=5, parameters=4, zeros=2, sparsity=0.5, storage="sparse"
)
KEPT = {
    "resolved": {"name": "classification", "classes": ["right", "wrong"]},
    "output": "y",
    "metric": "accuracy",
}
COOL = CpuState(mhz=1000, temperature_c=40, throttled=False)


def candidate(variant, **more):
    return Candidate(
        variant,
        RUNTIME,
        "xnnpack",
        1,
        **{
            "path": Path("m.tflite"),
            "model": MODEL,
            "golden": Path("golden.npz"),
            "samples": Path("samples.npz"),
            "evaluator": read_evaluator(KEPT, Path("targets.npz"), Path()),
            **more,
        },
    )


def check(variant, accuracy):
    """What a device says that classified that share of 100 samples as class 0, which is right."""
    name = f"{variant}@ai-edge-litert@1"
    outputs = np.zeros((100, 2), "<f4")
    outputs[round(100 * accuracy) :, 1] = 1
    data = base64.b64encode(outputs.tobytes()).decode()
    return [
        Answers(event="answers", entry=name, output=0, part=0, data=data),
        Check(event="check", entry=name, init_ms=1, agreement=1, samples=100),
    ]


@pytest.fixture(autouse=True)
def asked(tmp_path_factory, monkeypatch):
    """The samples that candidates are asked about."""
    folder = tmp_path_factory.mktemp("asked")
    monkeypatch.chdir(folder)
    save_samples(Path("samples.npz"), np.zeros((100, 1)))
    np.savez("targets.npz", y=np.zeros(100, int))
    save_golden(Path("golden.npz"), np.zeros((1, 1)), {"y": np.zeros((1, 2))})


def measured(variant, number, ms, **more):
    nanoseconds = [round(ms * 1e6) + i for i in range(50)]
    return Round(
        **{
            "event": "round",
            "entry": f"{variant}@ai-edge-litert@1",
            "round": number,
            "latency_ns": nanoseconds,
            "init_ms": 2 + number,
            "first_ms": 3,
            "warmup_runs": 10,
            "stable": True,
            "peak_rss_bytes": 100 + number,
            "cpu_before": COOL,
            "cpu_after": COOL,
            **more,
        }
    )


def rows(events, *candidates):
    return build_rows("p", "local", "dense", candidates or BOTH, events)


BOTH = (candidate("dense"), candidate("sparse", dense_twin="dense"))
GOOD = [
    *check("dense", 0.95),
    *check("sparse", 0.94),
    *(measured(v, i, ms) for i in range(3) for v, ms in (("dense", 2.0), ("sparse", 1.0))),
]


def test_a_job_spreads_the_totals_over_its_rounds():
    benchmark = Benchmark(rounds=5, min_runs=201, min_seconds=10)
    job = build_job("run", benchmark, [*BOTH, candidate("failed", path=None, error="x")])
    assert [e.name for e in job.entries] == ["dense@ai-edge-litert@1", "sparse@ai-edge-litert@1"]
    assert (job.settings.runs, job.settings.seconds) == (41, 2.0)


def test_the_default_measures_soundly():
    default = Benchmark()
    assert default.rounds >= 5
    assert default.warmup_runs >= 10
    assert default.min_runs >= 200
    assert default.min_seconds >= 10
    assert all(QUICK[name] < getattr(default, name) for name in QUICK)


def test_rows_of_a_good_run():
    dense, sparse = rows(GOOD)
    assert (dense.status, sparse.status) == ("ok", "ok")
    assert sparse.latency_ms.p50 == pytest.approx(1.0, rel=1e-3)
    assert sparse.latency_ms.samples == 150
    assert sparse.speedup.ratio == pytest.approx(2.0, rel=1e-3)
    assert sparse.speedup_vs_dense.baseline == "dense"
    assert dense.speedup_vs_dense is None
    assert sparse.score.drop == pytest.approx(0.01)
    assert (sparse.init_ms, sparse.peak_rss_bytes) == (3, 102)
    assert sparse.cpu.temperature_c == 40
    assert sparse.notes == []


def test_a_crash_late_in_the_run_fails_the_row_and_no_other():
    crash = Failed(event="failed", entry="sparse@ai-edge-litert@1", round=2, error="SIGSEGV")
    dense, sparse = rows([*GOOD, crash])
    assert (dense.status, sparse.status, sparse.error) == ("ok", "failed", "SIGSEGV")
    assert sparse.latency_ms is None


def test_without_its_baseline_a_row_has_no_ratio():
    crash = Failed(event="failed", entry="dense@ai-edge-litert@1", round=2, error="SIGSEGV")
    _, sparse = rows([*GOOD, crash])
    assert sparse.status == "ok"
    assert sparse.speedup is None


def test_wrong_answers_on_the_device_fail_the_row():
    limits = Limits(tolerance=0.1, min_agreement=0.9)
    answers, right = check("dense", 0.1)
    wrong = right.model_copy(update={"agreement": 0.5})
    (row,) = rows([answers, wrong, *GOOD[4:]], candidate("dense", limits=limits))
    assert row.status == "failed"
    assert "50% of golden outputs match" in row.error


def test_answers_that_did_not_arrive_fail_the_row_and_no_other():
    dense, sparse = rows(GOOD[1:])
    assert (dense.status, dense.error) == (
        "failed",
        "outputs for the test samples are incomplete",
    )
    assert (sparse.status, sparse.score.drop) == ("ok", None)


def test_what_was_not_reached_is_a_failed_row():
    dense, sparse = rows(GOOD[:5])
    assert dense.status == "ok"
    assert (sparse.status, sparse.error) == ("failed", "was not measured")


def test_doubts_are_said():
    hot = CpuState(mhz=600, temperature_c=85, throttled=True)
    events = [
        measured("dense", 0, 1.0, stable=False),
        measured("dense", 1, 1.5, stable=False, cpu_after=hot),
    ]
    (row,) = rows(events, candidate("dense"))
    text = " ".join(row.notes)
    assert "medians of rounds differ by 40%" in text
    assert "2 of 2 rounds did not settle" in text
    assert "throttled" in text
    assert "between 600 and 1000 MHz" in text


def test_gates():
    found = check_gates(
        [
            Gate(variant="sparse", metric="accuracy_drop", max=0.02),
            Gate(variant="sparse", metric="speedup", min=3),
            Gate(variant="dense", metric="bytes", min=1, max=10),
        ],
        rows(GOOD),
    )
    assert [g.passed for g in found] == [True, False, True]


def test_a_gate_that_samples_cannot_decide_says_so():
    (row, *_) = rows(GOOD)
    wide = Score(name="accuracy", unit="%", device=0.9, drop=0.005, drop_ci95=(-0.03, 0.04),
                 samples=40)  # fmt: skip
    gate = Gate(variant=row.variant, metric="accuracy_drop", max=0.02)
    (found,) = check_gates([gate], [row.model_copy(update={"metrics": [wide]})])
    assert found.passed
    assert found.warning.startswith("its interval of ±0.035 is wider than the gate")
    narrow = wide.model_copy(update={"drop_ci95": (0.0, 0.01)})
    (found,) = check_gates([gate], [row.model_copy(update={"metrics": [narrow]})])
    assert found.warning is None


def test_a_model_that_learned_nothing_has_a_note():
    score = Score(
        name="accuracy", unit="%", device=0.11, chance_level=0.103, ci95=(0.09, 0.14), samples=360
    )
    assert _chance_warnings({"metrics": [score]}) == [
        "at chance level: a constant answer has accuracy 10.3 %"
    ]
    assert _chance_warnings({}) == []


def test_a_gate_on_a_failed_row_is_not_met():
    gate = Gate(variant="sparse", metric="speedup", min=1)
    (found,) = check_gates([gate], [rows(GOOD[:3])[1]])
    assert (found.value, found.passed) == (None, False)
