"""Reads from an ELF file (64 bits, little-endian) what a shared library exports and needs."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC_SYMBOLS, _DYNAMIC, _NEEDED, _NOTE = 11, 6, 1, 7


@dataclass(frozen=True)
class Library:
    """`machine` is ELF's number: 62 is x86-64, 183 aarch64; `glibc` the newest version needed."""

    machine: int
    exports: frozenset[str]
    needed: frozenset[str]
    glibc: tuple[int, ...]
    notes: int


def read_library(path: Path) -> Library:
    """The dynamic symbols and libraries of a file."""
    content = path.read_bytes()
    assert content[:6] == b"\x7fELF\x02\x01", f"{path} is not a 64-bit little-endian ELF file"
    (machine,) = struct.unpack_from("<H", content, 18)
    (table,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    sections = [_SECTION.unpack_from(content, table + i * size) for i in range(count)]

    def text(strings: int, start: int) -> str:
        begin = sections[strings][4] + start
        return content[begin : content.index(b"\0", begin)].decode()

    exports, needed, notes = set(), set(), 0
    for _, kind, _, _, begin, length, link, _, _, entry in sections:
        notes += kind == _NOTE
        if kind == _DYNAMIC_SYMBOLS:
            for offset in range(begin, begin + length, entry):
                name, info, _, section, _, _ = _SYMBOL.unpack_from(content, offset)
                if section != 0 and info >> 4 in (1, 2):
                    exports.add(text(link, name))
        elif kind == _DYNAMIC:
            for offset in range(begin, begin + length, entry):
                tag, value = struct.unpack_from("<QQ", content, offset)
                if tag == _NEEDED:
                    needed.add(text(link, value))
    versions = re.findall(rb"GLIBC_([0-9.]+)\0", content)
    newest = max((tuple(map(int, v.split(b"."))) for v in versions), default=())
    return Library(machine, frozenset(exports), frozenset(needed), newest, notes)
