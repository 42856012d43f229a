"""Code, data and models behind a plan's keys; compared again where they are loaded, on any machine,
so that no artifact of other files is stored under those keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.files import digest_of

Name = tuple[str, str | None, str | None]
"""A package, and a built-in's name or a reference."""


class InputChanged(UsageError):
    """A file changed after the run began."""


@dataclass(frozen=True)
class Inputs:
    """Digests and code of a run; graph.digests fills them in."""

    digests: dict[str, str] = field(default_factory=dict)
    """Digests by role in the pipeline: data, model, task ..."""
    code: dict[str, bytes] = field(default_factory=dict)
    """The user's source files, by path. They go with the stages and are imported from here."""
    installed: dict[Name, str] = field(default_factory=dict)
    """Digests of code that is installed on every machine: built-ins and installed modules."""
    files: dict[str, str] = field(default_factory=dict)
    """Digests of data and saved models, by path; every machine must see the same."""
    folders: list[str] = field(default_factory=list)
    """Folders of data, whose files are all in `files`."""

    def target(self, name: Name, base: Path) -> str:
        """Return the digest of code, and record the code."""
        target = references.find(*name, base, classes=True)
        if target.module is not None:
            digest = references.digest(target)
            return self.installed.setdefault(name, digest)
        return references.digest(target, self._read)

    def _read(self, file: Path) -> bytes:
        # Once: two digests of one file must not be of two texts.
        return self.code.setdefault(str(file), file.read_bytes())

    def add_path(self, path: Path) -> dict[str, str]:
        """Record and return the digests of a file, or of the files in a folder, by path.

        Raises:
            OSError: a file cannot be read.
        """
        digests = {str(file): digest_of(file) for file in _files(path)}
        self.files.update(digests)
        if path.is_dir():
            self.folders.append(str(path))
        return digests

    def check(self) -> None:
        """Compare with this machine's files; not the user's code, which is imported from here.

        Raises:
            InputChanged: a file differs; the message names it.
        """
        for name, digest in self.installed.items():
            target = references.find(*name, Path(), classes=True)
            if references.digest(target) != digest:
                raise _changed(str(target.source))
        for path, digest in self.files.items():
            _compare(path, digest, digest_of)
        for folder in self.folders:
            for file in map(str, _files(Path(folder))):
                if file not in self.files:
                    raise _changed(file)

    def check_task_code(self) -> None:
        """Compare the user's code where it evaluates outputs: outside of stages' processes it is
        imported from its folder.

        Raises:
            InputChanged: a file differs; the message names it.
        """
        for path, content in self.code.items() if "task" in self.digests else ():
            _compare(path, content, Path.read_bytes)


def _compare(path: str, expected: object, read: object) -> None:
    assert callable(read)
    try:
        current = read(Path(path))
    except OSError as error:
        raise InputChanged(f"{path}: {error.strerror}; the run began with this file") from None
    if current != expected:
        raise _changed(path)


def _changed(path: str) -> InputChanged:
    return InputChanged(f"{path}: changed since the run began; run the same command again")


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
