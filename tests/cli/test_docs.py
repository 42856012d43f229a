"""The docs command, in a pipe and on a terminal."""

import os
import pty
import subprocess
import sys


def test_topics_are_listed_by_kind(cli):
    lines = cli("docs").stdout.splitlines()
    assert "Tutorials:" in lines
    assert any(line.split() == ["coral", "A", "Coral", "Edge", "TPU"] for line in lines)


def test_a_page_is_markdown_in_a_pipe(cli):
    text = cli("docs", "coral").stdout
    assert text.startswith("# A Coral Edge TPU\n")
    assert "All keys and compilers (docs device)" in text


def test_the_commands_page_is_that_of_this_program(cli):
    assert "\n## edgesparse docs\n" in cli("docs", "commands").stdout


def test_a_wrong_topic_names_the_nearest(cli):
    done = cli("docs", "corel")
    assert done.returncode == 2
    assert "no topic 'corel'; did you mean 'coral'" in done.stderr


def test_a_search_lists_sections_and_what_to_type(cli):
    lines = cli("docs", "--search", "int8", "slower").stdout.splitlines()
    assert lines[0] == "zeros: Why is int8 slower, or no faster?"
    assert lines[-1] == "edgesparse docs zeros"
    done = cli("docs", "--search", "xylophone")
    assert done.returncode == 2
    assert "no page has 'xylophone'" in done.stderr


def test_a_page_is_formatted_on_a_terminal():
    main, terminal = pty.openpty()
    environment = {**os.environ, "PAGER": "cat", "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "edgesparse", "docs", "coral"]
    with subprocess.Popen(command, stdout=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(main, 65536):
                shown += part
        except OSError:  # The end, on Linux.
            pass
    os.close(main)
    assert process.returncode == 0
    assert b"A Coral Edge TPU" in shown
    assert b"# A Coral" not in shown
