"""The transport to this machine."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgesparse.devices.transport import processes
from edgesparse.devices.transport.interface import (
    MAX_FETCHED_BYTES,
    DeviceError,
    NotWrittenError,
    Progress,
    Upload,
    disk_full,
    not_written,
    note_used,
)
from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.spec.device import Local
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.journal import Journal


class LocalTransport:
    """Runs commands as child processes and copies files within the file system."""

    # A lost connection means that this process ended: a job without one has no purpose.
    lease_seconds = 0.0
    clock_slowdown = 1.0
    is_ephemeral = False

    def __init__(self, name: str, spec: Local, workdir: str) -> None:
        self.name = name
        self.used: set[str] = set()
        self.journal: Journal | None = None
        self.stop = threading.Event()
        self.python = os.path.expanduser(spec.python) if spec.python else sys.executable
        self.workdir = os.path.abspath(os.path.expanduser(workdir))
        if shutil.which(self.python) is None:
            raise DeviceError(
                f"device {name}: {self.python} does not exist; "
                "correct connect.local.python in the device file"
            )

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        try:
            return processes.run(argv, timeout_seconds)
        except TimeoutError:
            raise DeviceError(
                f"device {self.name}: {argv[0]} did not finish within {timeout_seconds:g} s"
            ) from None
        except OSError as error:
            raise DeviceError(f"device {self.name}: {argv[0]}: {error.strerror}") from None

    @contextmanager
    def open(self, argv: Sequence[str]) -> Iterator[Channel]:
        channel = Channel(argv)
        try:
            yield channel
        finally:
            channel.close()

    def put_files(
        self,
        files: Sequence[Upload],
        progress: Progress | None = None,
        refused: dict[str, str] | None = None,
    ) -> int:
        note_used(self, files)
        sent = 0
        for file in files:
            try:
                sent += self._put(file)
            except NotWrittenError as error:
                if refused is None:
                    raise
                refused[file.target] = str(error)
        return sent

    def _put(self, file: Upload) -> int:
        target = Path(file.target)
        # Touched, so that the clean-up of old files spares it.
        if target.is_file() and not target.is_symlink() and file_digest(target) == file.sha256:
            with suppress(OSError):  # On a read-only file system it is not removed either.
                os.utime(target)
            return 0
        # A unique name: two devices of a fleet can be this machine.
        part = target.with_name(f"{target.name}.{file.sha256}.{uuid.uuid4().hex[:12]}.part")
        try:
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            problem = disk_full(
                self.name, file, shutil.disk_usage(target.parent).free, self.workdir
            )
            if problem is not None:
                raise problem
            shutil.copyfile(file.source, part)
            part.chmod(0o644)
            digest = file_digest(part)
            if digest != file.sha256:
                raise DeviceError(
                    f"device {self.name}: {file.source.name} was damaged while it was copied "
                    f"(sha256 {digest[:12]}, expected {file.sha256[:12]})"
                )
            size_bytes = part.stat().st_size
            os.replace(part, target)
        except OSError as error:
            raise not_written(self.name, file, error.strerror or str(error)) from None
        finally:
            with suppress(OSError):
                part.unlink()
        return size_bytes

    def get_file(self, source: str, target: Path, max_bytes: int = MAX_FETCHED_BYTES) -> None:
        try:
            size = os.stat(source).st_size
            if size > max_bytes:
                raise DeviceError(
                    f"device {self.name}: {source} is larger than the limit of "
                    f"{max_bytes / 1e6:.0f} MB"
                )
            shutil.copyfile(source, target)
        except OSError as error:
            raise DeviceError(f"device {self.name}: {source}: {error.strerror}") from None

    def remove_folder(self, path: str) -> None:
        # A wrong path would remove files of the user.
        if Path(self.workdir) not in Path(path).parents or ".." in Path(path).parts:
            raise ValueError(f"{path} is not below {self.workdir}")
        shutil.rmtree(path, ignore_errors=True)

    def reconnect(self) -> None:
        pass

    def close(self) -> None:
        pass
