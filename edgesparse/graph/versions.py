"""Versions that shape or describe a run: of the libraries, and the git commit of the project."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from edgesparse.stages import NAMES, kind


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that artifacts depend on, without importing them."""
    names = sorted({library for stage in NAMES for library in kind(stage).libraries})
    versions = {"python": platform.python_version()}
    for name in ("edgesparse", *names):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def revision(folder: Path, name: str = "HEAD") -> str:
    """Return the git commit of a folder or of a named revision in it; empty without git.

    A plus is added to HEAD where tracked files have changes.
    """
    verify = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    commit = git(folder, *verify)
    if name == "HEAD" and commit and git(folder, "status", "--porcelain", "--untracked-files=no"):
        return f"{commit}+"
    return commit


def git(folder: Path, *words: str) -> str:
    """Return what git prints in a folder; empty where it fails or is not installed."""
    try:
        done = subprocess.run(
            # The folder's git settings could run a program.
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
