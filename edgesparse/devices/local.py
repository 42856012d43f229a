"""The transport to this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgesparse.devices.transport import Completed, DeviceError, file_digest
from edgesparse.spec.device import Local


class LocalTransport:
    """Runs commands as child processes and copies files within the file system."""

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
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_seconds,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"device {self.name}: {argv[0]} gave no answer in {timeout_seconds:g} s"
            ) from None
        except OSError as error:
            raise DeviceError(f"device {self.name}: {argv[0]}: {error.strerror}") from None
        return Completed(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def stream(self, argv: Sequence[str]) -> Iterator[Iterator[str]]:
        # A session of its own: Ctrl-C in the terminal reaches us first, and we end the agent.
        with subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            try:
                yield iter(process.stdout)
            finally:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()

    def put_file(self, source: Path, target: str, sha256: str) -> bool:
        place = Path(target)
        if place.is_file() and file_digest(place) == sha256:
            return False
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, part)
            found = file_digest(part)
            if found != sha256:
                raise DeviceError(
                    f"device {self.name}: {source.name} arrived damaged (sha256 {found[:12]} "
                    f"instead of {sha256[:12]})"
                )
            os.replace(part, place)
        except OSError as error:
            raise DeviceError(
                f"device {self.name}: cannot write {target}: {error.strerror}"
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return True

    def get_file(self, source: str, target: Path) -> None:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise DeviceError(f"device {self.name}: {source}: {error.strerror}") from None

    def remove_folder(self, path: str) -> None:
        if Path(self.workdir) not in Path(path).parents:
            raise ValueError(f"{path} is not below {self.workdir}")
        shutil.rmtree(path, ignore_errors=True)
