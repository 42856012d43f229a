"""Progress on a terminal and in a pipe."""

import io
import os
import pty
import subprocess
import sys

import pytest

from edgesparse.cli import console
from edgesparse.graph import events

SCRIPT = """
from edgesparse.cli.console import ProgressDisplay
from edgesparse.graph import events
with ProgressDisplay() as tell:
    tell(events.StageStarted("train", 1, 2))
    tell(events.StageProgress("train", 0.5, "epoch 1/2"))
    tell(events.StageDone("train", 1, 2))
    tell(events.StageDone("convert a", 2, 2, cached=True))
    tell(events.StageFailed("verify a", ("a",), "[bold]refused[/bold]"))
    tell(events.Note("a note"))
"""


def test_a_terminal_gets_a_bar():
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", closefd=True) as screen:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        subprocess.run([sys.executable, "-c", SCRIPT], stderr=slave, env=environment, check=True)
        os.close(slave)
        shown = b""
        try:
            while block := screen.read1(65536):
                shown += block
        except OSError:  # The other side is closed.
            pass
    text = shown.decode()
    assert "\x1b[" in text
    assert "50%" in text
    assert "epoch 1/2" in text
    assert "[bold]refused[/bold]" in text


def test_a_pipe_gets_lines():
    done = subprocess.run([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, text=True)
    lines = done.stderr.splitlines()
    assert "\x1b" not in done.stderr
    assert lines[0] == "[1/2] train ..."
    assert lines[1].startswith("[1/2] train: ")
    assert lines[2:] == [
        "[2/2] convert a: cached",
        "FAILED verify a: [bold]refused[/bold]",
        "a note",
    ]


def test_a_pipe_gets_the_time_left_now_and_then(monkeypatch, capfd):
    """Forty seconds of compilation before the first step do not count."""
    clock = iter([0.0, 40.0, 41.0, 42.0, 43.0, 53.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.ProgressDisplay() as tell:
        tell(events.StageStarted("train", 1, 1))
        for share in (0.01, 0.03, 0.05, 0.07, 0.27):
            tell(events.StageProgress("train", share, "epoch"))
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["train ...", "  train: 1%, epoch", "  train: 27%, epoch, 0:36 left"]


def test_the_pace_of_the_last_minute_gives_the_time_left():
    stage = console._Running(0.0, 0.0)
    for second in range(100):
        stage.left(float(second), second / 1000)
    for second in range(100, 200):
        left = stage.left(float(second), 0.1 + (second - 100) / 200)
    assert left == "1:21 left"  # (1 - 0.595) / (1 / 200) seconds


@pytest.mark.parametrize("terminal", [True, False])
def test_results_have_control_codes_on_a_terminal_only(monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    console.result_console().print("x", style="bold")
    assert ("\x1b" in stream.getvalue()) is terminal


def test_a_page_that_fails_takes_nothing_away(tmp_path, monkeypatch, capsys):
    """The results are printed by then."""
    import edgesparse
    from edgesparse.cli.console import write_reports
    from tests.report.page.sample_run import run

    def broken(results, path):
        raise ZeroDivisionError("a chart")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(edgesparse, "write_page", broken)
    write_reports(edgesparse.Project(), run())
    assert capsys.readouterr().err == "no page: a chart\n"
