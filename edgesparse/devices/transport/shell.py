"""Commands for a device's login shell, of any kind, whose own output is separated."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _./:=,@+-")


def script_of(argv: Sequence[str]) -> str:
    """Return a POSIX shell line that runs `argv`."""
    return "exec " + " ".join(shlex.quote(argument) for argument in argv)


def remote_command(script: str) -> str:
    """Return a line that makes any login shell run a POSIX script.

    sh, fish and csh agree on single quotes only without quotes, backslashes before quotes, line
    breaks and "!" between them. Everything but plain characters is therefore written as octal
    escapes, which printf of sh decodes.
    """
    text = "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in script.encode())
    return f"""exec /bin/sh -c 'eval "$(printf %b "$1")"' sh '{text}'"""


def marked(script: str) -> tuple[str, str]:
    """Return the script with a command before it that prints a random mark, and the mark.

    Output before the mark comes from the login shell's start-up files.
    """
    # Random: a start-up file could print a fixed mark and forge output.
    mark = f"edgesparse-{secrets.token_hex(8)}"
    return f"printf '\\n{mark}\\n'; printf '\\n{mark}\\n' >&2; {script}", mark


def output_after_mark(text: str, mark: str) -> str | None:
    """Return the output of a script; None where it was never started."""
    _, separator, rest = text.partition(f"\n{mark}\n")
    return rest if separator else None
