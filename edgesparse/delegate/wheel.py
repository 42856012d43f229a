"""Puts the delegate's libraries into a wheel; pyproject.toml names the class."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """The usual command, and the libraries of every architecture: a wheel serves them all, since
    devices have another one than the machine that it is installed on."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # A clone builds them when they are first used.
        # pip loads this file alone, by its path.
        sys.path.insert(0, str(Path(__file__).parents[2]))
        from edgesparse.delegate.build import (
            ARCHITECTURES,
            MISSING,
            BuildError,
            file_name,
            library,
        )

        folder = Path(self.build_lib, "edgesparse", "delegate", "lib")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for architecture in ARCHITECTURES:
                shutil.copyfile(library(architecture), folder / file_name(architecture))
        except (BuildError, OSError) as error:
            shutil.rmtree(folder)
            folder.mkdir()
            # pip shows no warnings: users of the wheel see the reason where the library is needed.
            (folder / MISSING).write_text(str(error), encoding="utf-8")
            self.warn(f"this wheel has no delegate, only XNNPACK: {error}")
