"""What a workflow installs: the same edgesparse, from where other machines get it."""

import json
import re
import subprocess

import pytest

from edgesparse.commands.drafts import workflow as drafts
from edgesparse.commands.drafts.workflow import requirement, workflow


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "edgesparse==1.2"),
        (
            {"url": "https://me:secret@host/e.git", "vcs_info": {"vcs": "git", "commit_id": "ab"}},
            "git+https://host/e.git@ab",
        ),
        ({"url": "https://host/edgesparse-1.2.whl", "archive_info": {}},
         "https://host/edgesparse-1.2.whl"),
        ({"url": "file:///tmp/edgesparse-1.2.whl", "archive_info": {}}, None),
    ],
)  # fmt: skip
def test_the_source_of_an_installation_is_named(record, expected):
    assert requirement("1.2", record and json.dumps(record)) == expected


def test_a_clone_is_installed_by_its_commit_unless_it_is_changed(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-qm", "x")
    record = json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert requirement("1.2", record) is None
    git("remote", "add", "origin", "https://token@host/e.git")
    assert requirement("1.2", record) is None  # The commit was not pushed.
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    assert requirement("1.2", record) == f"git+https://host/e.git@{git('rev-parse', 'HEAD')}"
    inside = tmp_path / "vendored"
    inside.mkdir()
    assert requirement("1.2", json.dumps({"url": inside.as_uri(), "dir_info": {}})) is None
    (tmp_path / "file").write_text("2")
    assert requirement("1.2", record) is None


def test_without_such_a_source_the_workflow_takes_a_wheel(monkeypatch):
    monkeypatch.setattr(drafts, "requirement", lambda *_: None)
    text = workflow("mine")
    assert "pip install wheels/edgesparse-*.whl" in text
    assert "deploy pipelines/mine.yaml" in text
    assert not re.search("NAME|VERSION|INSTALL", text)
