"""The transport to this machine."""

from __future__ import annotations

import errno
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
    DiskFullError,
    Progress,
    Upload,
    in_files,
    no_room,
)
from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.spec.device import Local
from edgesparse.spec.safe.files import file_digest


class LocalTransport:
    """Runs commands as child processes and copies files within the file system."""

    # Only a dead host leaves work behind here, and nobody comes back for it.
    lease_seconds = 0.0
    clock_slowdown = 1.0
    is_ephemeral = False

    def __init__(self, name: str, spec: Local, workdir: str) -> None:
        self.name = name
        self.used: set[str] = set()
        self.stop = threading.Event()
        self.python = os.path.expanduser(spec.python) if spec.python else sys.executable
        self.workdir = os.path.abspath(os.path.expanduser(workdir))
        if shutil.which(self.python) is None:
            raise DeviceError(
                f"device {name}: no Python at {self.python}; "
                "correct connect.local.python in the device file"
            )

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        try:
            return processes.run(argv, timeout_seconds)
        except TimeoutError:
            raise DeviceError(
                f"device {self.name}: {argv[0]} gave no answer in {timeout_seconds:g} s"
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
        self.used |= in_files(self.workdir, files)
        sent = 0
        for file in files:
            try:
                sent += self._put(file)
            except DiskFullError as error:
                if refused is None:
                    raise
                refused[file.target] = str(error)
        return sent

    def _put(self, file: Upload) -> int:
        place = Path(file.target)
        # Touched, so that the clean-up of old files sees that it is used.
        if place.is_file() and not place.is_symlink() and file_digest(place) == file.sha256:
            os.utime(place)
            return 0
        # Its own name: two devices of a fleet may be this machine.
        part = place.with_name(f"{place.name}.{file.sha256}.{uuid.uuid4().hex[:12]}.part")
        try:
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            problem = no_room(self.name, file, shutil.disk_usage(place.parent).free, self.workdir)
            if problem is not None:
                raise problem
            shutil.copyfile(file.source, part)
            part.chmod(0o644)
            found = file_digest(part)
            if found != file.sha256:
                raise DeviceError(
                    f"device {self.name}: {file.source.name} arrived damaged (sha256 {found[:12]} "
                    f"instead of {file.sha256[:12]})"
                )
            size_bytes = part.stat().st_size
            os.replace(part, place)
        except OSError as error:
            kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DeviceError
            raise kind(
                f"device {self.name}: cannot write {file.target}: {error.strerror}; "
                "make room there or choose another workdir in the device file"
            ) from None
        finally:
            with suppress(OSError):
                part.unlink()
        return size_bytes

    def get_file(self, source: str, target: Path, max_bytes: int = MAX_FETCHED_BYTES) -> None:
        try:
            size = os.stat(source).st_size
            if size > max_bytes:
                raise DeviceError(
                    f"device {self.name}: {source} is larger than {max_bytes / 1e6:.0f} MB; refused"
                )
            shutil.copyfile(source, target)
        except OSError as error:
            raise DeviceError(f"device {self.name}: {source}: {error.strerror}") from None

    def remove_folder(self, path: str) -> None:
        # A wrong path here would remove somebody's files.
        if Path(self.workdir) not in Path(path).parents:
            raise ValueError(f"{path} is not below {self.workdir}")
        shutil.rmtree(path, ignore_errors=True)

    def reconnect(self) -> None:
        pass

    def close(self) -> None:
        pass
