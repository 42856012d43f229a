"""The transport to this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgesparse.devices.transport import processes
from edgesparse.devices.transport.interface import DeviceError, Progress, Upload
from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.spec.device import Local
from edgesparse.spec.files import file_digest


class LocalTransport:
    """Runs commands as child processes and copies files within the file system."""

    # Only a dead host leaves work behind here, and nobody comes back for it.
    lease_seconds = 0.0
    patience = 1.0

    def __init__(self, name: str, spec: Local, workdir: str) -> None:
        self.name = name
        self.python = os.path.expanduser(spec.python) if spec.python else sys.executable
        self.workdir = os.path.abspath(os.path.expanduser(workdir))
        if shutil.which(self.python) is None:
            raise DeviceError(
                f"device {name}: no Python at {self.python}; "
                "correct connect.local.python in the device file"
            )
        try:
            os.makedirs(self.workdir, exist_ok=True)
            probe = Path(self.workdir, f".write-test-{os.getpid()}")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise DeviceError(
                f"device {name}: cannot write to {self.workdir}: {error.strerror}; "
                "choose another workdir in the device file"
            ) from None

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

    def put_files(self, files: Sequence[Upload], progress: Progress | None = None) -> int:
        return sum(self._put(file) for file in files)

    def _put(self, file: Upload) -> int:
        place = Path(file.target)
        # Touched, so that the clean-up of old files sees that it is used.
        if place.is_file() and file_digest(place) == file.sha256:
            os.utime(place)
            return 0
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.source, part)
            found = file_digest(part)
            if found != file.sha256:
                raise DeviceError(
                    f"device {self.name}: {file.source.name} arrived damaged (sha256 {found[:12]} "
                    f"instead of {file.sha256[:12]})"
                )
            size_bytes = part.stat().st_size
            os.replace(part, place)
        except OSError as error:
            raise DeviceError(
                f"device {self.name}: cannot write {file.target}: {error.strerror}"
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return size_bytes

    def get_file(self, source: str, target: Path) -> None:
        try:
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
