"""Work in a process of its own: what it says and returns, how it dies, and that nothing is left."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgesparse.graph.execution.worker import Worker
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.spec.safe.file_access import WRITTEN
from edgesparse.stages.base.stage import PlanContext, Stage
from tests.conftest import ROOT, TINY
from tests.devices.ondevice.test_detached import await_end

PARTS = {"stage": Stage("any", "any", (), 1, {}, {}, {}), "inputs": {}, "folder": None}


@pytest.fixture(scope="module")
def context():
    return PlanContext(parse_pipeline(TINY, str(ROOT / "tiny.yaml")))


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with Worker(tmp_path_factory.mktemp("worker") / "logs" / "log.txt") as result:
        yield result


def call(worker, context, name, *arguments, **more):
    return worker.call(f"tests.graph.execution.tasks:{name}", context, PARTS, *arguments, **more)


def test_results_and_progress_come_back_and_what_is_printed_goes_to_the_log(worker, context):
    messages = []
    done, pid, variants = call(
        worker, context, "add", 2, 3, progress=lambda *said: messages.append(said)
    )
    assert (done, variants) == (5, 2)
    assert pid != os.getpid()
    assert messages == [(0.5, "halfway")]
    assert "said while adding" in worker.log.read_text()


def test_one_process_and_one_context_serve_call_after_call(worker, context):
    _, first, _ = call(worker, context, "add", 0, 0)
    call(worker, context, "same_context")
    assert call(worker, context, "same_context")
    assert call(worker, context, "add", 0, 0)[1] == first
    other = PlanContext(parse_pipeline(TINY.replace("sparsity: 0.5", "sparsity: 0.6")))
    assert not call(worker, other, "same_context")


@pytest.mark.slow
def test_other_code_or_devices_of_tensorflow_need_a_new_process(worker, context):
    """What Python has imported, and how TensorFlow was set up, stays until a process ends."""

    def process(user_code, strategy=""):
        text = TINY.replace("train: {", f"train: {{{strategy}")
        other = replace(PlanContext(parse_pipeline(text, "tiny.yaml")), user_code=user_code)
        return call(worker, other, "add", 0, 0)[1]

    worker.close()
    plain = process("")
    assert process("mine") == process("mine") == plain
    changed = process("mine, edited")
    without = process("")
    assert len({plain, changed, without}) == 3
    assert process("", "strategy: {name: mirrored, devices: ['CPU:0', 'CPU:1']}, ") != without


def test_a_call_prints_to_the_log_and_runs_in_the_folder_of_its_time(worker, context, monkeypatch):
    before = worker.log
    try:
        worker.log = before.with_name("other.txt")
        monkeypatch.chdir(before.parent)
        call(worker, context, "add", 0, 0)
        assert "said while adding" in worker.log.read_text()
        assert call(worker, context, "folder") == str(before.parent)
    finally:
        worker.log = before


def test_secrets_are_masked_in_the_log(worker, monkeypatch):
    """Values of the pipeline's variables and credentials in URLs, also after a crash; the process
    goes on to write behind them."""
    monkeypatch.setenv("TOKEN", "open-sesame")
    text = TINY + "description: '${TOKEN}'\n"
    context = PlanContext(parse_pipeline(text, "tiny.yaml"))
    before = worker.log.stat().st_size
    call(worker, context, "prints", "GET /?token=open-sesame", "at s3://me:hunter2@host/x")
    call(worker, context, "prints", "open-sesame again")
    with pytest.raises(EdgesparseError, match="exit code 7"):
        call(worker, context, "dies", "exit", "open-sesame at the end")
    log = worker.log.read_text()[before:]
    assert "GET /?token=${TOKEN}\nat s3://***@host/x\nto stderr as C does\n" in log
    assert "${TOKEN} again" in log
    assert "${TOKEN} at the end" in log
    assert "open-sesame" not in log
    assert "hunter2" not in log


def test_work_asks_this_process(worker, context):
    assert call(worker, context, "asks", [1, 2], handle_request=sum) == 3

    def refuse(_):
        raise EdgesparseError("device pi: no answer")

    with pytest.raises(EdgesparseError, match="device pi: no answer"):
        call(worker, context, "asks", 1, handle_request=refuse)
    assert call(worker, context, "asks", 1, handle_request=lambda value: value) == 1


@pytest.mark.parametrize(
    ("kind", "message", "logged"),
    [
        ("ours", "p.yaml:3:1: that will not do", False),
        ("disk", "No space left on device: place", True),
        ("exit", "the code called sys.exit(3) (details in {log})", True),
        ("other", "tasks.py:{line}: ValueError: first line (details in {log})", True),
    ],
)
def test_an_exception_is_one_line_and_its_traceback_is_in_the_log(
    worker, context, kind, message, logged
):
    before = worker.log.read_text()
    with pytest.raises(EdgesparseError) as caught:
        call(worker, context, "fails", kind)
    source = (ROOT / "tests" / "graph" / "execution" / "tasks.py").read_text().splitlines()
    line = 1 + source.index('    raise ValueError("first line\\nsecond line")')
    assert str(caught.value) == message.format(log=worker.log, line=line)
    assert ("Traceback" in worker.log.read_text()[len(before) :]) == logged
    assert call(worker, context, "add", 1, 1)[0] == 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("segfault", "its process crashed (SIGSEGV) in ctypes/__init__.py (string_at)"),
        ("abort", "its process crashed (SIGABRT) in execution/tasks.py (dies)"),
        ("memory", "its process was killed (SIGKILL), probably out of memory"),
        ("exit", "its process ended early with exit code 7"),
    ],
)
def test_a_crash_is_reported_and_the_next_call_has_a_new_process(worker, context, how, message):
    with pytest.raises(EdgesparseError) as caught:
        call(worker, context, "dies", how)
    assert str(caught.value).startswith(message)
    assert call(worker, context, "add", 1, 1)[0] == 2


def test_whatever_interrupts_the_call_ends_the_process_and_all_that_it_started(context, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    worker = Worker(tmp_path / "log.txt")
    with pytest.raises(KeyboardInterrupt):
        call(worker, context, "waits", str(tmp_path / "pids"), progress=interrupt)
    await_end(map(int, (tmp_path / "pids").read_text().split()))


def test_reads_of_the_users_code_are_returned_and_repeated(worker, tmp_path):
    """What it has in memory may be of a file that has changed."""
    file = tmp_path / "weights.bin"
    file.write_text("1")
    loaded = parse_pipeline(TINY, str(tmp_path / "tiny.yaml"))
    local = replace(PlanContext(loaded), user_code="of this test")

    def read(*words):
        result = {}
        return *call(worker, local, "reads", str(file), *words, reads=result), result

    first, pid, result = read()
    assert set(result) == {"weights.bin"}
    again, same, more = read()
    assert (again, same, more) == (first, pid, result)
    file.write_text("2")
    second, other, changed = read()
    assert (first, second) == ("1", "2")
    assert other != pid
    assert changed != result
    # Of work that failed, too.
    file.write_text("3")
    with pytest.raises(EdgesparseError, match="no good"):
        read("fails")
    file.write_text("4")
    third, last, _ = read()
    assert third == "4"
    assert last != other


def test_what_changes_while_the_users_code_reads_it_is_read_anew(worker, tmp_path):
    file = tmp_path / "weights.bin"
    file.write_text("1")
    loaded = parse_pipeline(TINY, str(tmp_path / "tiny.yaml"))
    local = replace(PlanContext(loaded), user_code="of this other test")

    def noticed(_):
        worker._watch.reads(tmp_path)

    result = {}
    call(worker, local, "reads", str(file), "changed", handle_request=noticed, reads=result)
    assert result == {"weights.bin": WRITTEN}


HOST = """
import sys
from edgesparse.graph.execution.worker import Worker
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.stages.base.stage import PlanContext, Stage
from pathlib import Path
from tests.conftest import ROOT, TINY
with Worker(Path("log.txt")) as worker:
    worker.call(
        "tests.graph.execution.tasks:waits",
        PlanContext(parse_pipeline(TINY, str(ROOT / "tiny.yaml"))),
        {"stage": Stage("any", "any", (), 1, {}, {}, {}), "inputs": {}, "folder": None},
        "pids",
        progress=lambda *_: print("begun", flush=True),
    )
"""


def test_a_host_that_is_killed_leaves_no_worker_and_nothing_that_it_started(tmp_path):
    """Without a __main__ guard, too: a user's script is not run a second time."""
    script = tmp_path / "script.py"
    script.write_text(HOST)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout.readline() == "begun\n"
        host.send_signal(signal.SIGKILL)
    await_end(map(int, Path(tmp_path, "pids").read_text().split()))
