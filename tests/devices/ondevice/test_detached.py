"""Jobs over a real SSH server: cut connections, two hosts, hosts that die, hostile devices."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgesparse.devices.agent import event_stream
from edgesparse.devices.agent import run_job as measure
from edgesparse.devices.agent.events import End, Failed, Round, Start, Waiting
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import Stopped, run_job
from edgesparse.devices.transport.interface import ConnectionLost, DeviceError

pytestmark = pytest.mark.slow

FOREVER = 10_000
"""Rounds that no test waits for."""


def job(name, *models, rounds=3, timeout_seconds=60.0):
    entries = tuple(Entry(f"m{i}", m, "ai-edge-litert", "xnnpack", 1) for i, m in enumerate(models))
    return Job(name, rounds, Settings(1, 0.0, 5, 0.0, timeout_seconds), entries)


def processes(folder):
    """Command lines of processes that work in `folder`."""
    result = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in command and "ssh" not in command.split()[0]:
                result[int(entry.name)] = command
    return result


def await_end(pids, timeout_seconds=60):
    """Wait, without polling, until processes that are not ours have ended."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ready, _, _ = select.select([handle], [], [], timeout_seconds)
        os.close(handle)
        assert ready, f"process {pid} is still there"


def rounds_of(events):
    return [(e.entry, e.round) for e in events if isinstance(e, Round)]


def test_a_lost_connection_is_restored_and_no_round_is_repeated(server, board, tflite_files):
    request = job("cut", tflite_files["dense"], tflite_files["int8"], rounds=4)
    heard = []

    def cut(event):
        heard.append(event)
        if isinstance(event, Round) and len(rounds_of(heard)) in (2, 5):
            server.cut()

    events = run_job(board, request, cut)
    assert isinstance(events[-1], End)
    assert sorted(rounds_of(events)) == [(f"m{i}", r) for i in (0, 1) for r in range(4)]
    assert len([e for e in events if isinstance(e, Start)]) == 1
    assert not list(Path(board.workdir, "jobs").iterdir())


def test_the_journal_goes_on_where_a_killed_agent_stopped(server, board, tflite_files):
    """Everything on the device dies, as in a power cut; finished rounds are not done again."""
    request = job("power", tflite_files["dense"], rounds=6)
    heard = []

    def kill(event):
        heard.append(event)
        if len(rounds_of(heard)) == 3 and isinstance(event, Round):
            mine = [pid for pid, line in processes(board.workdir).items() if "agent-" in line]
            assert mine
            for pid in mine:
                os.kill(pid, signal.SIGKILL)

    events = run_job(board, request, kill)
    assert rounds_of(events) == [("m0", r) for r in range(6)]


def test_stop_ends_the_work_on_the_device(board, tflite_files):
    stop = threading.Event()
    request = job("stop", tflite_files["dense"], rounds=FOREVER)
    running = {}

    def on_event(event):
        if isinstance(event, Round) and not running:
            running.update(processes(board.workdir))
            stop.set()

    with pytest.raises(Stopped):
        run_job(board, request, on_event, stop)
    assert running
    await_end(running)
    assert not processes(board.workdir)
    assert not list(Path(board.workdir, "jobs").glob("stop*"))


_HOST = """
import sys
from pathlib import Path
from edgesparse.devices.agent.events import Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.spec.base import Ssh
spec, workdir, model, lease, name = sys.argv[1:]
transport = SshTransport("board", Ssh.model_validate_json(spec), workdir)
transport.lease_seconds = float(lease)
entry = Entry("m", Path(model), "ai-edge-litert", "xnnpack", 1)
job = Job(name, 10_000, Settings(1, 0.0, 5, 0.0, 60.0), (entry,))
run_job(transport, job, lambda e: print(e.event, flush=True))
"""


def host(server, workdir, model, lease, name="host"):
    spec = server.spec().model_dump_json()
    command = [sys.executable, "-c", _HOST, spec, workdir, model, lease, name]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_host_that_goes_leaves_no_process(server, tmp_path, tflite_files, number):
    """Ctrl-C stops the device's work; a host that just dies is waited for as its lease says."""
    with host(server, tmp_path / "work", tflite_files["dense"], 0.2) as process:
        for line in process.stdout:
            if line.strip() == "round":
                break
        running = processes(tmp_path / "work")
        assert any("detached" in line for line in running.values())
        process.send_signal(number)
        process.wait(60)
    await_end(running)
    assert not processes(tmp_path / "work")


def test_two_hosts_take_turns(server, tflite_files):
    """The second waits, and says so, until the first is done."""
    first, second = server.connect(), server.connect()
    stop, waiting, order = threading.Event(), threading.Event(), []

    def on_first(event):
        if isinstance(event, Round):
            if not other.is_alive() and not waiting.is_set():
                other.start()
            if waiting.is_set():
                order.append("first")

    def on_second(event):
        if isinstance(event, Waiting):
            waiting.set()
            order.append("waits")
            stop.set()
        elif isinstance(event, Round):
            order.append("second")

    def run_second():
        run_job(second, job("second", tflite_files["dense"], rounds=2), on_second)

    other = threading.Thread(target=run_second)
    with pytest.raises(Stopped):
        run_job(first, job("first", tflite_files["dense"], rounds=FOREVER), on_first, stop)
    other.join(60)
    first.close()
    second.close()
    assert order[0] == "waits"
    assert order[-2:] == ["second", "second"]
    assert "first" not in order[order.index("second") :]


def test_a_runtime_that_crashes_there_fails_its_entry_only(board, tflite_files, crashing_model):
    events = run_job(board, job("crash", crashing_model, tflite_files["dense"], rounds=2))
    assert [e.entry for e in events if isinstance(e, Failed)] == ["m0"]
    assert "crashed (SIG" in next(e.error for e in events if isinstance(e, Failed))
    assert rounds_of(events) == [("m1", 0), ("m1", 1)]


def test_hostile_output_does_no_harm(board, tflite_files, monkeypatch, tmp_path):
    forged = [
        {"event": "check", "entry": "nobody", "init_ms": 1.0},
        {"event": "failed", "entry": "../../etc/passwd", "round": None, "error": "x"},
        {"event": "failed", "entry": "m0", "round": None, "error": "\x1b[31mours"},
        {"event": "failed", "entry": "m0", "round": None, "error": "twice"},
        {"event": "end"},
    ]
    agent = tmp_path / "agent.py"
    agent.write_text(
        "import sys\n"
        "sys.stdout.buffer.write(bytes(range(256)) * 1000 + b'\\n')\n"
        "sys.stdout.write('{' * 8_000_000 + '\\n')\n"
        "sys.stdout.write('[' * 100_000 + '\\n')\n"
        f"for line in {[json.dumps(event) for event in forged]!r}: print(line)\n"
    )
    monkeypatch.setattr(measure, "AGENT", agent)
    events = run_job(board, job("hostile", tflite_files["dense"], rounds=2))
    assert [e.error for e in events if isinstance(e, Failed)] == ["\\x1b[31mours"]
    assert isinstance(events[-1], End)


def test_endless_output_times_out(board, tflite_files, monkeypatch, tmp_path):
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 1.0)
    agent = tmp_path / "agent.py"
    agent.write_text("while True: print('nonsense ' * 1000)\n")
    monkeypatch.setattr(measure, "AGENT", agent)
    with pytest.raises(DeviceError, match=r"(no output from|unexpected output).*nonsense"):
        run_job(board, job("flood", tflite_files["dense"], timeout_seconds=0.5))
    await_end(processes(board.workdir))


def test_a_device_that_stays_away_is_one_message(server, tflite_files, monkeypatch):
    board = server.connect()
    monkeypatch.setattr("edgesparse.devices.transport.ssh_master.RECONNECT_SECONDS", 0.0)

    def gone(event):
        if isinstance(event, Round):
            server.stop()

    try:
        with pytest.raises(ConnectionLost, match="switch the device on"):
            run_job(board, job("away", tflite_files["dense"], rounds=FOREVER), gone)
        left = processes(board.workdir)
    finally:
        if server.process is None:
            server.start()
    for pid in left:  # It would wait for us as long as its lease.
        os.kill(pid, signal.SIGKILL)
    board.close()
