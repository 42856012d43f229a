"""Commands for a device's login shell, whichever that is, told apart from what it prints itself."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _./:=,@+-")


def script_of(argv: Sequence[str]) -> str:
    """A POSIX shell line that runs `argv` as it stands."""
    return "exec " + " ".join(shlex.quote(argument) for argument in argv)


def remote_command(script: str) -> str:
    """A line that makes any login shell run a POSIX script.

    sh, fish and csh agree on what single quotes mean only while no quote, backslash before a quote,
    line break or "!" stands between them. So everything but plain characters is written as octal
    escapes, which sh's own printf undoes.
    """
    text = "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in script.encode())
    return f"""exec /bin/sh -c 'eval "$(printf %b "$1")"' sh '{text}'"""


def marked(script: str) -> tuple[str, str]:
    """The script, first saying on both outputs a word that nobody can foresee; and that word.

    What comes before it was printed by the login shell's start-up files.
    """
    # Random: a start-up file that prints a fixed mark could forge an answer.
    mark = f"edgesparse-{secrets.token_hex(8)}"
    return f"printf '\\n{mark}\\n'; printf '\\n{mark}\\n' >&2; {script}", mark


def output_after_mark(text: str, mark: str) -> str | None:
    """What a script said itself; None when it was never started."""
    _, found, rest = text.partition(f"\n{mark}\n")
    return rest if found else None
