"""Children whose output is bounded in time and size."""

import sys

import pytest

from edgesparse.devices.transport import processes
from edgesparse.devices.transport.processes import Channel


def python(code):
    return [sys.executable, "-c", code]


def test_both_outputs_and_the_code_are_kept():
    done = processes.run(
        python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), 30
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_no_more_than_so_much_is_kept(monkeypatch):
    monkeypatch.setattr(processes, "MAX_OUTPUT", 1000)
    done = processes.run(python("print('x' * 5_000_000)"), 30)
    assert len(done.stdout) == 1000


def test_a_child_that_gives_no_answer_is_ended():
    with pytest.raises(TimeoutError):
        processes.run(["sleep", "1000"], 0.05)


def test_a_channel_reads_lines_and_sends_words():
    channel = Channel(python("for line in iter(input, 'end'): print('got', line, flush=True)"))
    channel.send("a\n")
    assert channel.read_line(30) == "got a"
    channel.send("end\n")
    with pytest.raises(EOFError):
        channel.read_line(30)
    assert channel.close() in (0, 1)
    channel.send("late\n")


def test_a_huge_line_loses_its_rest_and_no_other(monkeypatch):
    monkeypatch.setattr(processes, "MAX_LINE", 1000)
    channel = Channel(python("print('x' * 300_000); print('next')"))
    lines = [channel.read_line(30), channel.read_line(30)]
    channel.close()
    assert (lines[0], lines[1]) == ("x" * 1000, "next")


def test_closing_ends_a_child_that_does_not_listen(monkeypatch):
    monkeypatch.setattr(processes, "CLOSE_SECONDS", 0.05)
    channel = Channel(["sleep", "1000"])
    assert channel.read_line(0.01) is None
    assert channel.close() != 0
