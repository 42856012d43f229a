"""Files that are whole or not there, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def replace_text(path: Path, text: str) -> None:
    """Write whole or not at all, into a folder that is made for it; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def replace_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """The same for a JSON document; NaN and infinity, which JSON has not, raise ValueError."""
    replace_text(path, json.dumps(value, indent=1, sort_keys=sort_keys, allow_nan=False) + "\n")


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
