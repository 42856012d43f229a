"""Environments of the converters: litert-torch's and onnx2tf's dependencies conflict with ours.

Each lies in the user's cache under the digest of its requirements, and is built by a command only,
since it is large: under another name, renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import locked, user_cache
from edgesparse.spec.safe.isolated_python import import_path
from edgesparse.spec.safe.text import clean

Progress = Callable[[float, str], None]
Format = Literal["torch", "onnx"]

_TORCH = """
absl-py==2.5.1
ai-edge-litert==2.3.0
ai-edge-quantizer==0.10.0
filelock==4.3.1
flatbuffers==25.12.19
fsspec==2026.9.0
immutabledict==4.3.1
jax==0.10.2
jaxlib==0.10.2
jinja2==3.1.6
litert-converter==0.5.0
litert-torch==0.10.0
markdown-it-py==4.3.0
markupsafe==3.0.4
mdurl==0.1.2
ml-dtypes==0.5.4
mpmath==1.3.0
multipledispatch==1.0.0
networkx==3.4.2
numpy==2.2.6
opt-einsum==3.4.0
ordered-set==4.1.0
packaging==26.4
protobuf==7.36.2
pygments==2.21.0
rich==15.0.0
safetensors==0.8.0
scipy==1.15.3
sympy==1.14.0
tabulate==0.10.0
torch==2.13.0+cpu; sys_platform == "linux"
torch==2.13.0; sys_platform != "linux"
torchao==0.17.0
tqdm==4.70.1
typing-extensions==4.16.0
xdsl==0.28.0
"""
_ONNX = """
onnx==1.19.1
onnx-graphsurgeon==0.5.8
onnx2tf==1.29.24
onnxruntime==1.23.0
psutil==5.9.5
sne4onnx==2.0.1
sng4onnx==2.0.1
"""
_CPU_WHEELS = (
    "its CPU build is in PyTorch's own package index only: install uv, which finds it, or add that "
    "index, named on pytorch.org/get-started, to pip's: PIP_EXTRA_INDEX_URL=... edgesparse setup "
    "torch"
)


@dataclass(frozen=True)
class Environment:
    """A converter's packages, all of them pinned: none is installed for another's sake.

    `shares_ours`: the process also imports the packages of this process, such as TensorFlow, after
    its own.
    """

    format: Format
    converter: str
    requirements: str
    download_mb: int
    disk_mb: int
    minutes: int
    shares_ours: bool
    least_python: tuple[int, int] = (3, 10)

    @property
    def folder(self) -> Path:
        """The environment's folder, by its requirements and the version of Python."""
        recipe = f"{sys.version_info[:2]} {self.requirements}"
        name = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        return user_cache("converters") / f"{self.format}-{name}"

    @property
    def size(self) -> str:
        """Its size, and the time that its installation takes."""
        disk = f"{self.disk_mb / 1000:.1f} GB" if self.disk_mb >= 1000 else f"{self.disk_mb} MB"
        minutes = f"{self.minutes} minute{'s' * (self.minutes != 1)}"
        return f"{self.download_mb} MB to download, {disk} on the disk, about {minutes}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def imported(self) -> list[str]:
        """Folders that its process imports from after its own packages."""
        return import_path() if self.shares_ours else []

    def check_python(self) -> None:
        """Raise UsageError where its packages need a later Python than this one."""
        if sys.version_info[:2] < self.least_python:
            least, this = (".".join(map(str, v)) for v in (self.least_python, sys.version_info[:2]))
            raise UsageError(
                f"{self.converter} needs Python {least} or later, and this is {this}; install "
                f"edgesparse in a virtual environment of Python {least} or later"
            )

    def require(self, source: str | Path) -> None:
        """Raise UsageError where it has not been built, or cannot be."""
        self.check_python()
        if not self.python.exists():
            raise UsageError(
                f"{source} needs a converter that is not installed, {self.converter} "
                f"({self.size}); type: edgesparse setup {self.format}"
            )


ENVIRONMENTS: dict[Format, Environment] = {
    # CPU builds of PyTorch; the usual ones for Linux take gigabytes of libraries for GPUs.
    "torch": Environment("torch", "litert-torch", _TORCH, 440, 1900, 6, False, (3, 11)),
    # It pins another TensorFlow, but works with ours, which spares 2 GB.
    "onnx": Environment("onnx", "onnx2tf", _ONNX, 36, 170, 1, shares_ours=True),
}


def build(environment: Environment, progress: Progress) -> bool:
    """Build an environment with uv or else pip; return False where it exists.

    A second builder waits for the first.

    Raises:
        UsageError: it needs a later Python.
        EdgesparseError: the disk has too little space, or a package cannot be installed.
    """
    environment.check_python()
    folder = environment.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{folder}.lock")):
        if environment.python.exists():
            return False
        free_mb = shutil.disk_usage(folder.parent).free // 1_000_000
        if free_mb < environment.disk_mb + environment.download_mb:
            needed = environment.disk_mb + environment.download_mb
            raise EdgesparseError(
                f"{folder.parent} has {free_mb} MB free; {environment.converter} needs {needed} MB"
            )
        part = Path(f"{folder}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            _fill(environment, part, progress)
            # An old one whose Python was removed, such as by an upgrade.
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return True


def _fill(environment: Environment, folder: Path, progress: Progress) -> None:
    listed = folder / "requirements.txt"
    listed.write_text(environment.requirements)
    count = len(environment.requirements.split("\n"))
    progress(0.0, "virtual environment")
    _run([sys.executable, "-I", "-m", "venv", folder], environment, count, progress)
    python = folder / "bin" / "python"
    arguments: list[str | Path] = ["install", "--no-deps", "--requirement", listed]
    if uv := shutil.which("uv"):
        backend: list[str | Path] = ["--torch-backend", "cpu"] * (environment.format == "torch")
        command: list[str | Path] = [uv, "pip", *arguments, "--python", python, *backend]
        if _run(command, environment, count, progress, required=False):
            return
        progress(0.0, "uv failed; pip")
    _run(
        [python, "-I", "-m", "pip", *arguments, "--disable-pip-version-check",
         "--progress-bar", "off"],
        environment, count, progress,
    )  # fmt: skip


def _run(
    command: Sequence[str | Path],
    environment: Environment,
    count: int,
    progress: Progress,
    *,
    required: bool = True,
) -> bool:
    """Run a command that installs `count` packages, with a progress by those that it begins.

    Returns whether it succeeded, unless it is `required`. Raises EdgesparseError.
    """
    # An installed compiler must not be asked to build what the index has no wheel of.
    variables = {**os.environ, "PIP_ONLY_BINARY": ":all:", "UV_ONLY_BINARY": ":all:"}
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=variables,
    )
    begun, errors = 0, ""
    last: deque[str] = deque(maxlen=6)
    try:
        assert process.stdout is not None
        for line in filter(str.strip, process.stdout):
            words = line.split()
            last.append(clean(line.strip()))
            if words[0] in ("Collecting", "Downloading", "Installing"):
                begun += words[0] == "Collecting"
                progress(min(0.9, begun / count), clean(" ".join(words[:2]))[:60])
            elif words[0].lower().startswith("error"):
                errors = clean(line)
        process.wait()
    finally:  # After Ctrl-C, too.
        process.kill()
        process.wait()
    if process.returncode == 0 or not required:
        return process.returncode == 0
    if environment.format == "torch" and "torch==" in errors:
        raise EdgesparseError(f"no torch 2.13.0 for CPUs for this machine: {_CPU_WHEELS}")
    cause = errors or " ".join(last) or f"exit status {process.returncode}"
    raise EdgesparseError(f"{environment.converter} cannot be installed: {cause}")
