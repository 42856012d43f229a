"""What the keys of a plan were made of: code, data and models; compared once more wherever they are
loaded, on any machine, so that no artifact of other files is stored under those keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.files import digest_of

Name = tuple[str, str | None, str | None]
"""A room, and a built-in's name or a reference."""


class InputChanged(UsageError):
    """A file is not what it was when a run began."""


@dataclass(frozen=True)
class Inputs:
    """Filled while digests are taken; see graph.fingerprints."""

    digests: dict[str, str] = field(default_factory=dict)
    """Of all that plays a role in a pipeline, by that role."""
    code: dict[str, bytes] = field(default_factory=dict)
    """The user's files of code, by path. They go with the stages and are imported from here."""
    installed: dict[Name, str] = field(default_factory=dict)
    """Digests of code that every machine has for itself: built-ins and installed modules."""
    files: dict[str, str] = field(default_factory=dict)
    """Digests of data and saved models, by path; every machine must see the same."""
    folders: list[str] = field(default_factory=list)
    """Folders of data, whose files are all in `files`."""

    def target(self, name: Name, base: Path) -> str:
        """The digest of code, which is taken along."""
        target = references.find(*name, base, classes=True)
        if target.module is not None:
            found = references.digest(target)
            return self.installed.setdefault(name, found)
        return references.digest(target, self._read)

    def _read(self, file: Path) -> bytes:
        # Once: two digests of one file must not be of two texts.
        return self.code.setdefault(str(file), file.read_bytes())

    def add_path(self, path: Path) -> dict[str, str]:
        """Digests of a file, or of the files in a folder, by path. Raises OSError."""
        found = {str(file): digest_of(file) for file in _files(path)}
        self.files.update(found)
        if path.is_dir():
            self.folders.append(str(path))
        return found

    def check(self) -> None:
        """Compare with what is on this machine, but for the user's code, which is imported from
        here. Raises InputChanged, which names the file."""
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
        """The same where answers are judged by the user's code: outside of stages' processes it is
        imported from where it lies."""
        for path, content in self.code.items() if "task" in self.digests else ():
            _compare(path, content, Path.read_bytes)


def _compare(path: str, expected: object, read: object) -> None:
    assert callable(read)
    try:
        found = read(Path(path))
    except OSError as error:
        raise InputChanged(f"{path}: {error.strerror}, and the run began with it") from None
    if found != expected:
        raise _changed(path)


def _changed(path: str) -> InputChanged:
    return InputChanged(f"{path}: not the file that the run began with; run the same command again")


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
