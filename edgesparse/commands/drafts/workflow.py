"""The workflow for GitHub Actions that `init --ci` writes."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgesparse.graph.versions import git, revision
from edgesparse.spec.safe.text import without_credentials

WORKFLOW = """\
# Deploys to an emulated Raspberry Pi, on whose clock figures are exact, and fails where something
# became slower, less accurate, or stopped working.
name: edgesparse
on:
  push: {branches: [main]}
  pull_request:
jobs:
  deploy:
    runs-on: ubuntu-latest
    # Ubuntu's own package sources have no arm64, of which the board's disk is made.
    env: {EDGESPARSE_APT_SOURCES: /tmp/debian.list}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.11"}
      # Stages and runs of earlier commits: what did not change is not trained again.
      - uses: actions/cache@v4
        with:
          path: .edgesparse
          key: edgesparse-${{ github.ref }}-${{ github.sha }}
          restore-keys: |
            edgesparse-${{ github.ref }}-
            edgesparse-refs/heads/main-
      # The board's disk image: built once, in minutes.
      - uses: actions/cache@v4
        with:
          path: ~/.cache/edgesparse/emulator
          key: emulator-VERSION-${{ hashFiles('devices/*.yaml') }}
      - run: |
          sudo apt-get update
          sudo apt-get install -y qemu-system-arm cpio e2fsprogs debian-archive-keyring
          from="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
          from="$from https://deb.debian.org/debian"
          echo "deb $from bookworm main" >"$EDGESPARSE_APT_SOURCES"
INSTALL
      - run: edgesparse deploy pipelines/NAME.yaml --device pi5-emulated
      # Exit code 3 where the last run regressed against the one before.
      - run: |
          test "$(ls .edgesparse/runs/*/results.json | wc -l)" = 1 ||
            edgesparse compare --html compare.html
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: pages
          path: |
            .edgesparse/runs/*/page.html
            compare.html
"""
"""NAME is the pipeline, VERSION and INSTALL those of edgesparse."""
_FROM_WHEEL = """\
      # This edgesparse is installed from files of one machine. Put its wheel into the repository:
      #   pip wheel --no-deps --wheel-dir wheels FOLDER_OF_EDGESPARSE
      - run: pip install wheels/edgesparse-*.whl"""


def workflow(pipeline: str) -> str:
    """Return a workflow that deploys a pipeline to an emulated board, with this edgesparse."""
    distribution = metadata.distribution("edgesparse")
    source = requirement(distribution.version, distribution.read_text("direct_url.json"))
    install = _FROM_WHEEL if source is None else f"      - run: pip install '{source}'"
    text = WORKFLOW.replace("INSTALL", install).replace("VERSION", distribution.version)
    return text.replace("NAME", pipeline)


def requirement(version: str, direct_url: str | None) -> str | None:
    """Return what pip installs the same edgesparse from on another machine.

    Args:
        version: the installed version.
        direct_url: the content of pip's direct_url.json (PEP 610); None after an installation
            from a package index.

    Returns:
        A requirement; None where only this machine has the files.
    """
    if direct_url is None:
        return f"edgesparse=={version}"
    record = json.loads(direct_url)
    url, vcs = without_credentials(record["url"], ""), record.get("vcs_info")
    if vcs is not None:
        return f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if not url.startswith("file:"):
        return str(url)
    folder = Path(unquote(urlsplit(url).path))
    remote, commit = git(folder, "remote", "get-url", "origin"), revision(folder)
    # Another repository around the folder does not have this edgesparse at its top.
    top = git(folder, "rev-parse", "--show-toplevel")
    if not remote.startswith("https://") or not commit or Path(top) != folder.resolve():
        return None
    # Another machine can install only a commit that was pushed.
    if commit.endswith("+") or not git(folder, "branch", "--remotes", "--contains", commit):
        return None
    return f"git+{without_credentials(remote, '')}@{commit}"
