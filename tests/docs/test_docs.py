"""Topics of the documentation, search in them, and what of them comes from the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgesparse
from edgesparse.cli.main import main
from edgesparse.docs import PAGES, offline, topic, topics
from edgesparse.docs.generated import with_generated
from edgesparse.docs.search import find
from edgesparse.spec.errors import UsageError

PACKAGE = Path(edgesparse.__file__).parent


def test_every_page_is_a_topic_with_a_title():
    every = topics()
    assert {t.path for t in every.values()} == set(PAGES.rglob("*.md"))
    assert all(t.read().startswith(f"# {t.title}\n") for t in every.values())


def test_an_unknown_topic_names_the_nearest():
    with pytest.raises(UsageError, match="no topic 'corel'; did you mean 'coral'"):
        topic("corel")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("int8 slower", "zeros"),
        ("noexec", "troubleshooting"),
        ("my own loss", "tasks"),
        ("own training loop", "training"),
        ("host key changed", "troubleshooting"),
        ("write a method", "plugin"),
        ("coral edge tpu", "coral"),
        ("exit code 3", "commands"),
        ("pytorch", "pytorch"),
        ("onnx", "pytorch"),
        ("canary", "fleet"),
        ("github actions", "ci"),
        ("accuracy budget", "budget"),
        ("unknown host key", "troubleshooting"),
        ("pi: every key was refused", "troubleshooting"),
        ("the CPU clock varied between 600 and 1500 MHz", "troubleshooting"),
        ("what to ship", "measurement"),
    ],
)
def test_a_search_finds_the_right_page_first(query, expected):
    assert find(query)[0].section.topic.name == expected


def test_troubleshooting_quotes_messages_of_the_code():
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    messages = re.sub(r'"\s*\n\s*f?"', "", sources)
    quoted = re.findall(r"^\| `([^`]+)` \|", topic("troubleshooting").read(), re.MULTILINE)
    assert len(quoted) > 30
    assert [text for text in quoted if text not in messages] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path, monkeypatch):
    """Its navigation has every page, and links and anchors exist."""
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    words = ["-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    config = ["--config-file", str(PACKAGE / "docs" / "mkdocs.yml")]
    done = subprocess.run([sys.executable, *words, *config], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "edgesparse deploy" in (tmp_path / "site/reference/commands/index.html").read_text()


def test_a_search_without_a_match():
    assert find("xylophone") == []


def test_offline_pages_name_topics_in_place_of_links():
    text = "[a](../x/zeros.md#b), [c](https://d.e), [f](#g) ![i](j.svg)<!-- keys -->\nh"
    assert offline(text) == "a (docs zeros), [c](https://d.e), f h"


def test_the_commands_are_all_documented():
    text = with_generated(topic("commands").read(), main)
    for name in [*main.commands, "device releases", "emulator build"]:
        assert f"\n## edgesparse {name}\n" in text
    assert "| `--device TEXT` | Name of a file in devices/" in text


def test_the_api_is_all_documented():
    text = with_generated(topic("python").read(), main)
    for name in edgesparse.__all__:
        assert f"\n## {name}\n" in text
    assert "\n### Project.deploy\n" in text
    assert "\n- `variants`: " in text
