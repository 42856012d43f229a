"""A device that lies, behind a real OpenSSH server, never takes the others with it."""

import io
import json
import re
import sys
from contextlib import ExitStack

import pytest
from rich.console import Console

import edgesparse as es
from edgesparse.graph.workspace import Workspace
from edgesparse.report.terminal import print_results
from edgesparse.spec.pipeline import Benchmark
from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import TINY, run_cli
from tests.devices.agent.test_events import FAILED, HOST, ROUND
from tests.devices.ondevice.test_detached import processes
from tests.report.test_hostile import CONTROLS
from tests.tools.sshd import ssh_server

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m \u202etxt <img src=x onerror=alert(1)> ![x](http://x/y)"
# Its own Python: honest but for what the agent says of the device, and for the job's events.
LIAR = """#!{python}
import json, os, sys, time
lie = json.load(open({lie!r}))
words = sys.argv[1:]
program = os.path.basename(words[0]) if words else ""
if program.startswith("agent-") and words[1:] == ["info"] and lie["info"] is not None:
    print(lie["info"])
    sys.exit(0)
if program.startswith("detached-") and lie["events"] is not None and lie["only"] in words[2]:
    job = json.load(open(words[2] + "/job.json"))
    names = [entry["entry"] for entry in job["entries"]]
    for line in lie["events"]:
        for name in names if "ENTRY" in line else names[:1]:
            text = line.replace("ENTRY", name).replace("JOB", job["id"])
            sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass") + b"\\n")
    sys.stdout.flush()
    number = 0
    while lie["endless"]:
        event = dict(lie["endless"], entry=names[0], round=number)
        sys.stdout.write((json.dumps(event) + "\\n") * 1000)
        number += 1
    sys.exit(0)
os.execv({python!r}, [{python!r}, *words])
"""


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """An honest board and a liar; `lie` is a file that says how."""
    folder = tmp_path_factory.mktemp("boards")
    (folder / "devices").mkdir()
    lie = folder / "lie.json"
    liar = folder / "python3"
    liar.write_text(LIAR.format(python=sys.executable, lie=str(lie)))
    liar.chmod(0o755)
    with ExitStack() as stack:
        for name, python in (("honest", sys.executable), ("liar", str(liar))):
            server = stack.enter_context(ssh_server(folder / name))
            (folder / "devices" / f"{name}.yaml").write_text(
                server.device_yaml(name, python=python)
            )
        (folder / "model.tflite").write_bytes(tiny_model())
        yield folder, lie, server


def lines(*events):
    return [json.dumps({**event, "entry": "ENTRY"}) for event in events]


BRIEF = Benchmark(rounds=2, min_seconds=0.05, min_runs=4, warmup_runs=1, warmup_seconds=0.0)
NO_LIE = {"info": None, "events": None, "endless": None, "only": ""}
START = json.dumps({"event": "start", "job": "JOB", "host": HOST})
CHECK = {"event": "check", "init_ms": 1.0}
END = '{"event": "end"}'
ACTING = {
    "events": [START, *lines({**FAILED, "error": NASTY}), END],
    "info": json.dumps({**HOST, "cpu": NASTY}),
}
CASES = {
    "latency 0": {"events": [START, *lines(CHECK, {**ROUND, "latency_ns": [0] * 9}), END]},
    "memory of 310 digits": {
        "events": [START, *lines(CHECK, {**ROUND, "peak_rss_bytes": int("9" * 310)}), END]
    },
    "negative memory": {"events": [START, *lines(CHECK, {**ROUND, "peak_rss_bytes": -5}), END]},
    "nested without end": {"events": [START, '{"event": "check", "entry": ' + "[" * 100_000]},
    "a clock of 1e308": {
        "events": [
            START,
            *lines(CHECK, {**ROUND, "cpu_before": {**ROUND["cpu_before"], "mhz": 1e308}}),
            END,
        ]
    },
    "an end and no work": {"events": [START, END]},
    "nothing": {"events": []},
    "ever new failures": {"events": [START], "endless": FAILED},
    "-5 cores": {"info": json.dumps({**HOST, "cores": -5})},
    "protocol 999": {"info": json.dumps({**HOST, "protocol": 999})},
    "version 3.\u00b2": {"info": json.dumps({**HOST, "python": "3.\u00b2"})},
    "info without end": {"info": "[" * 100_000},
}


EVERY_DAY = ("latency 0", "an end and no work", "ever new failures", "info without end")
"""An event that cannot be, one too few, ever more, and what is not even JSON; the others are their
neighbours."""


def cases():
    for case in CASES:
        marks = () if case in EVERY_DAY else (pytest.mark.full,)
        yield pytest.param(case, marks=(pytest.mark.slow, *marks))


def check(folder, server):
    """Of the last run: the liar failed, the honest one did not, and nothing is left there."""
    results = Workspace(folder).results()
    assert results.failed
    rows = {row.device: row for row in results.rows}
    assert rows["liar"].status == "failed"
    assert rows["honest"].status == "ok"
    assert rows["honest"].latency_ms.rounds == 2
    assert not processes(server.workdir)


@pytest.mark.parametrize("case", cases())
def test_a_device_that_lies_is_a_failed_device_beside_whole_ones(boards, case):
    folder, lie, server = boards
    lie.write_text(json.dumps(NO_LIE | CASES[case]))
    events = []
    model = folder / "model.tflite"
    es.bench(model, ["liar", "honest"], benchmark=BRIEF, project=folder, listener=events.append)
    check(folder, server)
    console = Console(record=True, width=100, file=io.StringIO())
    print_results(Workspace(folder).results(), console)
    shown = console.export_text() + "\n".join(map(str, events))
    assert "Traceback" not in shown
    assert not CONTROLS.search(shown)


@pytest.mark.slow
def test_texts_that_act_do_nothing_in_what_commands_print(boards):
    folder, lie, server = boards
    lie.write_text(json.dumps(NO_LIE | ACTING))
    words = ("--quick", "--device", "liar", "--device", "honest")
    done = run_cli("bench", "model.tflite", *words, cwd=folder, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not CONTROLS.search(done.stdout + done.stderr)
    check(folder, server)
    for form in ("table", "markdown", "csv", "json"):
        report = run_cli("report", "--format", form, cwd=folder)
        assert report.returncode == 0, report.stderr
        assert not CONTROLS.search(report.stdout)
        if form == "markdown":
            assert not re.search(r"(?<!\\)<|(?<!\\)!\[", report.stdout)


@pytest.mark.slow
def test_a_release_needs_a_check(boards, shared_store):
    """A device that measures honestly, and of the release only says that it is done."""
    folder, lie, server = boards
    lie.write_text(json.dumps({**NO_LIE, "events": [START, END], "only": "-release"}))
    (folder / "tiny.yaml").write_text(TINY)
    done = run_cli("deploy", "tiny.yaml", "--device", "liar", cwd=folder)
    assert done.returncode == 1
    assert "the release could not be checked and was not made current" in done.stdout
    assert {row.status for row in Workspace(folder).results().rows} == {"ok"}
    releases = server.workdir / "releases" / "tiny"
    assert len(list(releases.glob("*/manifest.json"))) == 1
    assert not (releases / "current").exists()
