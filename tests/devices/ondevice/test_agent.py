"""The agent with real runtimes, real crashes and real kills."""

import ast
import base64
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import venv
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesparse.data import raw
from edgesparse.devices.agent.events import (
    Answers,
    Check,
    End,
    Failed,
    Round,
    Start,
    parse_event,
)
from edgesparse.devices.agent.job import Entry
from edgesparse.devices.agent.run_job import AGENT, collect_outputs
from edgesparse.devices.agent.sample_files import read_arrays, save_golden, save_samples
from edgesparse.devices.ondevice import agent
from edgesparse.measure.evaluation import read_evaluator
from tests.conftest import require

SETTINGS = {
    "warmup_runs": 2,
    "warmup_seconds": 0,
    "runs": 5,
    "seconds": 0.01,
    "timeout_seconds": 60,
}


def entry(name, model, runtime="ai-edge-litert", **more):
    return {
        "entry": name,
        "model": str(model),
        "runtime": runtime,
        "delegate": "xnnpack",
        "threads": 1,
        **more,
    }


class Job:
    def __init__(self, folder: Path, *entries, rounds=2, **settings):
        self.job, self.journal = folder / "job.json", folder / "journal.jsonl"
        content = {
            "id": "job-1",
            "rounds": rounds,
            "lock": str(folder / "lock"),
            "settings": {**SETTINGS, **settings},
            "entries": list(entries),
        }
        self.job.write_text(json.dumps(content))
        self.command = [sys.executable, str(AGENT), "run", str(self.job), str(self.journal)]

    def run(self):
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return [parse_event(line) for line in done.stdout.splitlines()]


def of(events, kind, name=None):
    return [e for e in events if isinstance(e, kind) and (name is None or e.entry == name)]


@pytest.mark.parametrize(
    "program", [*sorted(AGENT.parent.glob("*.py")), Path(raw.__file__)], ids=lambda p: p.stem
)
def test_it_is_python_3_7(program):
    ast.parse(program.read_text(), feature_version=(3, 7))


def test_it_imports_only_the_standard_library_numpy_and_runtimes():
    tree = ast.parse(AGENT.read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    others = {n.split(".")[0] for n in names} - set(sys.stdlib_module_names)
    assert others == {"numpy"}


def test_rounds_are_interleaved_and_complete(tflite_files, tmp_path):
    events = Job(
        tmp_path, entry("a", tflite_files["dense"]), entry("b", tflite_files["int8"]), rounds=3
    ).run()
    assert isinstance(events[0], Start)
    assert isinstance(events[-1], End)
    order = [(e.round, e.entry) for e in of(events, Round)]
    assert order == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    for measured in of(events, Round):
        assert len(measured.latency_ns) >= 5
        assert measured.warmup_runs >= 2
        assert measured.first_ms > 0
        assert 1e6 < measured.peak_rss_bytes < 4e9


def test_both_runtimes(tflite_files, tmp_path):
    require(sys.version_info < (3, 12), "tflite-runtime has wheels up to Python 3.11")
    events = Job(
        tmp_path,
        entry("a", tflite_files["dense"], "ai-edge-litert"),
        entry("b", tflite_files["dense"], "tflite-runtime"),
        entry("c", tflite_files["dense"], "tflite-runtime", delegate="none"),
        rounds=1,
    ).run()
    assert len(of(events, Round)) == 3
    assert set(events[0].host.runtimes) == {"ai-edge-litert", "tflite-runtime"}


@pytest.fixture
def answers(sparse_dense_layer, samples, tmp_path):
    golden, labelled = tmp_path / "golden.npz", tmp_path / "samples.npz"
    outputs = sparse_dense_layer(samples).numpy()
    save_golden(golden, samples, {"y": outputs})
    labels = outputs.argmax(axis=-1)
    labels[:4] = (labels[:4] + 1) % 10
    save_samples(labelled, samples)
    np.savez(tmp_path / "targets.npz", y=labels)
    return {"golden": str(golden), "samples": str(labelled), "tolerance": 1e-3}


def as_entry(path, answers):
    golden, samples = Path(answers["golden"]), Path(answers["samples"])
    return Entry("a", path, "ai-edge-litert", "xnnpack", 1, golden=golden, samples=samples)


def test_answers_are_compared_on_the_device_and_judged_here(tflite_files, answers, tmp_path):
    path = tflite_files["dense"]
    events = Job(tmp_path, entry("a", path, **answers), rounds=0).run()
    (check,) = of(events, Check)
    assert check.agreement == 1.0
    assert check.samples == 16
    result = collect_outputs(as_entry(path, answers), events)
    assert result["y"] == pytest.approx(read_arrays(Path(answers["golden"]), "y")["y"], abs=1e-5)
    resolved = {"name": "classification", "classes": [str(i) for i in range(10)]}
    kept = {"resolved": resolved, "output": "y", "metric": "accuracy"}
    evaluator = read_evaluator(kept, tmp_path / "targets.npz", tmp_path)
    evaluation = evaluator.evaluate_entry(as_entry(path, answers), events)
    assert evaluation.scores["accuracy"] == 12 / 16
    assert evaluation.samples == 16


@pytest.mark.slow
def test_answers_too_long_for_a_line_come_in_parts_and_whole_or_not_at_all(
    tflite_files, answers, tmp_path
):
    path, x = tflite_files["dense"], read_arrays(Path(answers["golden"]), "x")["x"]
    many = np.tile(x, (1250, 1))
    save_samples(tmp_path / "many.npz", many)
    answers = {**answers, "samples": str(tmp_path / "many.npz")}
    events = Job(tmp_path, entry("a", path, **answers), rounds=0).run()
    parts = of(events, Answers)
    assert [part.part for part in parts] == [0, 1]
    result = collect_outputs(as_entry(path, answers), events)["y"]
    assert result.shape == (20_000, 10)
    assert result[:16] == pytest.approx(result[-16:])
    for lost in parts:
        assert (
            collect_outputs(as_entry(path, answers), [e for e in events if e is not lost]) is None
        )
    torn = parts[1].model_copy(update={"data": parts[1].data[:-4]})
    assert collect_outputs(as_entry(path, answers), [parts[0], torn]) is None
    odd = parts[1].model_copy(update={"data": "!" + parts[1].data[1:]})
    assert collect_outputs(as_entry(path, answers), [parts[0], odd]) is None


def test_an_output_is_reduced_to_the_number_of_the_largest(tflite_files, answers, tmp_path):
    path = tflite_files["dense"]
    local = {**answers, "reduced": [True]}
    events = Job(tmp_path, entry("a", path, **local), rounds=0).run()
    (part,) = of(events, Answers)
    result = collect_outputs(replace(as_entry(path, answers), reduced=(True,)), events)["y"]
    expected = read_arrays(Path(answers["golden"]), "y")["y"].argmax(axis=-1)
    assert result.dtype == np.int16
    assert result.tolist() == expected.tolist()
    assert len(base64.b64decode(part.data)) == 2 * len(expected)
    assert agent.argmax(np.array([[1.0, 2.0], [np.nan, 0.0]])).tolist() == [1, -1]


def test_wrong_answers_are_seen(tflite_files, answers, samples, tmp_path):
    outputs = read_arrays(Path(answers["golden"]), "y")["y"]
    save_golden(tmp_path / "golden.npz", samples, outputs[:, ::-1])
    events = Job(tmp_path, entry("a", tflite_files["dense"], **answers), rounds=0).run()
    assert of(events, Check)[0].agreement < 0.5


def test_int8_agrees_within_its_own_tolerance(tflite_files, answers, tmp_path):
    loose = {**answers, "tolerance": 0.2}
    events = Job(tmp_path, entry("a", tflite_files["int8"], **loose), rounds=0).run()
    assert of(events, Check)[0].agreement == 1.0


def test_a_segfault_fails_its_entry_only(tflite_files, crashing_model, tmp_path):
    fine = entry("fine", tflite_files["dense"])
    events = Job(tmp_path, entry("crash", crashing_model), fine).run()
    (failed,) = of(events, Failed)
    assert failed.entry == "crash"
    assert "the runtime crashed (SIGSEGV)" in failed.error
    assert len(of(events, Round, "fine")) == 2


def test_a_killed_process_fails_its_entry_only(tflite_files, tmp_path):
    job = Job(
        tmp_path,
        entry("victim", tflite_files["dense"]),
        entry("other", tflite_files["dense"]),
        rounds=1,
        seconds=3,
        runs=10_000_000,
    )
    with subprocess.Popen(job.command, stdout=subprocess.PIPE, text=True) as agent:
        events = []
        for line in agent.stdout:
            events.append(parse_event(line))
            if isinstance(events[-1], Check) and events[-1].entry == "other":
                os.kill(_process_of(agent.pid, "victim"), signal.SIGKILL)
    (failed,) = of(events, Failed)
    assert (failed.entry, failed.round) == ("victim", 0)
    assert "SIGKILL" in failed.error
    assert len(of(events, Round, "other")) == 1


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def _process_of(pid: int, name: str) -> int:
    """The process that measures `name`, as soon as it is there: a fork of the agent's child."""
    while True:
        with suppress(FileNotFoundError, ProcessLookupError):
            for process in (fork for child in _children(pid) for fork in _children(child)):
                if Path(f"/proc/{process}/comm").read_text().strip() == name:
                    return process


@pytest.mark.slow
def test_a_model_that_hangs_is_ended(tflite_files, tmp_path):
    events = Job(
        tmp_path, entry("a", tflite_files["dense"]), rounds=1, seconds=60, timeout_seconds=2
    )
    # Rounds end at 10 000 runs, so the endless part is the warm-up.
    content = json.loads(events.job.read_text())
    content["settings"]["warmup_seconds"] = 60
    events.job.write_text(json.dumps(content))
    (failed,) = of(events.run(), Failed)
    assert failed.error == "no result after 2 s"


def test_of_a_long_output_the_report_and_the_end_are_kept():
    lines = ["edgesparse: a library with kernels avx2", *["noise " * 20] * 3000]
    lines += ["edgesparse-node\t0\tCONV_2D\ttaken\t0.9\trest"] * 6000 + [
        "x" * 100_000,
        "ERROR: last",
    ]
    file = io.BytesIO("\n".join(lines).encode())
    report, end = agent.read_output(file)
    assert report == {"nodes": [["CONV_2D", "taken", "0.9"]] * 5000, "kernels": "avx2"}
    assert len(end) <= 4000
    assert end.endswith("x\nERROR: last")


def test_what_is_no_model_has_a_reason(tmp_path):
    (tmp_path / "text.tflite").write_text("not a model at all, but long enough")
    events = Job(tmp_path, entry("a", tmp_path / "text.tflite")).run()
    assert "ValueError" in of(events, Failed)[0].error
    missing = Job(tmp_path, entry("a", tmp_path / "none.tflite"))
    missing.journal.unlink()
    assert "Could not open" in of(missing.run(), Failed)[0].error


def test_a_missing_runtime_has_a_reason(tflite_files, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    job = Job(tmp_path, entry("a", tflite_files["dense"]), rounds=0)
    job.command[0] = str(tmp_path / "bare" / "bin" / "python")
    (failed,) = of(job.run(), Failed)
    assert "cannot import ai-edge-litert: No module named" in failed.error


def test_a_runtime_that_crashes_when_it_is_imported_has_a_reason(
    tflite_files, tmp_path, monkeypatch
):
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGILL)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = Job(tmp_path, *(entry(name, tflite_files["dense"]) for name in "ab"))
    failed = of(job.run(), Failed)
    assert [(e.entry, e.error) for e in failed] == [
        ("a", "the runtime crashed (SIGILL)"),
        ("b", "the runtime crashed (SIGILL)"),
    ]


def test_a_server_that_was_ended_between_two_measurements_is_started_anew(tmp_path):
    job = {"settings": {"timeout_seconds": 60}, "entries": []}
    runner = agent.Agent(job, str(tmp_path / "journal.jsonl"))
    request = {"entry": "a", "kind": "check", "runtime": "none", **job}
    for _ in range(2):
        assert "KeyError: 'none'" in runner.run_process(dict(request))["error"]
        os.kill(runner.servers["none"].process.pid, signal.SIGKILL)
        select.select([runner.servers["none"].status], [], [], 30)
        runner.servers["none"].process.wait()
    runner.close_servers()


def test_a_fork_counts_the_memory_of_a_program_that_loads_the_model_itself(tflite_files, tmp_path):
    path = tflite_files["dense"]
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import agent, json\n"
        "request = json.loads(sys.argv[2]); interpreter, _ = agent.open_interpreter(request)\n"
        "agent.fill_inputs(interpreter, request); interpreter.invoke()\n"
        "print(agent.proc_bytes('/proc/self/status', 'VmHWM'))"
    )
    command = [sys.executable, "-c", program, str(AGENT.parent), json.dumps(entry("a", path))]
    alone = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (measured,) = of(Job(tmp_path, entry("a", path), rounds=1).run(), Round)
    assert measured.peak_rss_bytes == pytest.approx(alone, rel=0.1)


@pytest.mark.slow
def test_a_journal_is_continued_without_repeating(tflite_files, tmp_path):
    job = Job(tmp_path, entry("a", tflite_files["dense"]), entry("b", tflite_files["int8"]))
    whole = job.run()
    lines = job.journal.read_text().splitlines(keepends=True)
    job.journal.write_text("".join(lines[:4]) + lines[4][:30])
    again = job.run()
    assert again[:4] == whole[:4]
    assert [(type(e), getattr(e, "entry", None)) for e in again] == [
        (type(e), getattr(e, "entry", None)) for e in whole
    ]


def test_a_journal_of_another_job_is_not_used(tflite_files, tmp_path):
    job = Job(tmp_path, entry("a", tflite_files["dense"]), rounds=1)
    job.journal.write_text('{"event": "start", "job": "other"}\n{"event": "round", "entry": "a"}\n')
    assert len(of(job.run(), Round)) == 1


def test_a_stop_leaves_no_process(tflite_files, tmp_path):
    job = Job(tmp_path, entry("a", tflite_files["dense"]), rounds=1, warmup_seconds=60)
    with subprocess.Popen(job.command, stdout=subprocess.PIPE, text=True) as agent:
        while not isinstance(parse_event(agent.stdout.readline()), Check):
            pass
        fork = _process_of(agent.pid, "a")
        processes = [os.pidfd_open(process) for process in (fork, *_children(agent.pid))]
        agent.terminate()
        agent.wait(timeout=30)
    assert agent.returncode == 128 + signal.SIGTERM
    assert len(processes) == 2
    for process in processes:  # Linux ends a fork with its parent, a moment later.
        assert select.select([process], [], [], 30)[0]
        os.close(process)


def test_two_jobs_queue_on_the_lock(tflite_files, tmp_path):
    import fcntl

    job = Job(tmp_path, entry("a", tflite_files["dense"]), rounds=1)
    with (tmp_path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        agent = subprocess.Popen(job.command, stdout=subprocess.PIPE, text=True)
        assert json.loads(agent.stdout.readline()) == {"event": "waiting"}
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(agent.stdout))
    reader.start()
    reader.join(timeout=60)
    agent.wait(timeout=60)
    agent.stdout.close()
    assert isinstance(parse_event(lines[-1]), End)
