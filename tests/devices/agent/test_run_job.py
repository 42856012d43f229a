import sys
from pathlib import Path

import pytest

from edgesparse.devices.agent import run_job as measure
from edgesparse.devices.agent.events import Check, Failed
from edgesparse.devices.agent.job import Entry, check_only
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.spec.device import Local


@pytest.fixture
def local(tmp_path):
    return LocalTransport("here", Local(), str(tmp_path / "work"))


def job(*entries):
    return check_only(entries, "job-1", 60)


def entry(model, name="a"):
    return Entry(name, model, "ai-edge-litert", "xnnpack", 1)


def test_a_job_is_carried_out_and_cleaned_up(local, tflite_files):
    messages = []
    events = measure.run_job(local, job(entry(tflite_files["dense"])), messages.append)
    assert events == messages
    assert any(isinstance(e, Check) for e in events)
    assert not list(Path(local.workdir, "jobs").iterdir())
    assert len(list(Path(local.workdir, "files").iterdir())) == 1


def test_host_info(local):
    info = measure.host_info(local)
    assert "ai-edge-litert" in info.runtimes
    assert info.cores >= 1


def _with_agent(monkeypatch, tmp_path, text):
    agent = tmp_path / "agent.py"
    agent.write_text(text)
    monkeypatch.setattr(measure, "AGENT", agent)


def test_junk_and_forged_events_are_left_out(local, tflite_files, monkeypatch, tmp_path):
    lines = [
        "Welcome!",
        '{"event": "check", "entry": "b", "init_ms": 1.0}',
        '{"event": "failed", "entry": "not ours", "round": null, "error": "x"}',
        '{"event": "failed", "entry": "a", "round": null, "error": "ours"}',
        '{"event": "end"}',
        '{"event": "failed", "entry": "a", "round": null, "error": "after the end"}',
    ]
    _with_agent(monkeypatch, tmp_path, f"print({chr(10).join(lines)!r})")
    events = measure.run_job(local, job(entry(tflite_files["dense"])))
    assert [e.error for e in events if isinstance(e, Failed)] == ["ours"]


def test_an_agent_that_stops_early_is_an_error(local, tflite_files, monkeypatch, tmp_path):
    _with_agent(monkeypatch, tmp_path, "raise OSError('disk full')")
    with pytest.raises(DeviceError, match="before its job was done: OSError: disk full"):
        measure.run_job(local, job(entry(tflite_files["dense"])))


def test_a_python_that_cannot_run_the_agent(tmp_path):
    broken = tmp_path / "python"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('no module named encodings')\n")
    broken.chmod(0o755)
    transport = LocalTransport("here", Local(python=str(broken)), str(tmp_path / "w"))
    with pytest.raises(DeviceError, match="cannot run the agent: no module named encodings"):
        measure.host_info(transport)
