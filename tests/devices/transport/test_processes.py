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


def test_closing_ends_a_child_that_only_prints(monkeypatch):
    """And keeps nothing of what it says: ten seconds of that were gigabytes."""
    monkeypatch.setattr(processes, "MAX_OUTPUT", 1000)
    channel = Channel(python("while True: print('x' * 1000)"))
    assert channel.read_line(30) == "x" * 1000
    assert channel.close() != 0


def fetched(tmp_path, code, max_bytes=10_000, seconds=30.0):
    with (tmp_path / "sink").open("wb") as sink:
        text = processes.fetch(python(code), b"MARK\n", sink, max_bytes, seconds)
    return text, (tmp_path / "sink").read_bytes()


def test_what_is_fetched_comes_after_the_mark(tmp_path):
    code = "import sys; sys.stdout.write('hello MA'); sys.stdout.flush(); print('RK\\nabc')"
    assert fetched(tmp_path, code) == ("", b"abc\n")
    text, _ = fetched(tmp_path, "import sys; sys.exit('no \\x1b[2J such file')")
    assert text == "no \\x1b[2J such file"


def test_what_is_fetched_has_a_limit_and_a_deadline(tmp_path):
    with pytest.raises(OverflowError):
        fetched(tmp_path, "print('MARK'); print('x' * 20_000)")
    endless = "print('MARK', flush=True)\nwhile True: print(end='x', flush=True)"
    with pytest.raises((TimeoutError, OverflowError)):
        fetched(tmp_path, endless, max_bytes=10**9, seconds=0.3)
    with pytest.raises(TimeoutError):
        fetched(tmp_path, "import time; time.sleep(1000)", seconds=0.3)


def test_a_child_that_takes_nothing_more_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STALL_SECONDS", 0.3)
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    with (tmp_path / "big").open("rb") as source:
        sent, code, _ = processes.feed(python("import time; time.sleep(1000)"), source, print)
    assert sent < 1_000_000
    assert code < 0


def test_a_child_reads_stdin_and_returns_stderr(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    messages = []
    code = "import sys; sys.exit(f'{len(sys.stdin.read())} bytes')"
    with (tmp_path / "big").open("rb") as source:
        source.seek(1000)
        sent, code, text = processes.feed(python(code), source, messages.append)
    assert (sent, code, text) == (999_000, 1, b"999000 bytes\n")
    assert messages[-1] == 999_000
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as source:
        assert processes.feed(["cat"], source, messages.append) == (0, 0, b"")
