"""Mutations of texts and bytes, repeatable by their seed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence


def chances(count: int) -> Iterator[random.Random]:
    """A source of chance for each of `count` tries; the seed is printed, and EDGESPARSE_SEED sets
    it."""
    seed = int(os.environ.get("EDGESPARSE_SEED") or random.SystemRandom().randrange(2**32))
    # Shown by pytest where the test fails.
    print(f"EDGESPARSE_SEED={seed}, {count} tries")
    for number in range(count):
        if number % 100 == 0:
            print(f"from try {number} on")
        yield random.Random(f"{seed} {number}")


def mutated_text(text: str, scraps: Sequence[str], chance: random.Random) -> str:
    """A text with 1 to 8 places cut out, doubled, or replaced by a scrap or any character."""
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 3, 20]))
        middle = chance.choice([*scraps, text[start:end] * 2, chr(chance.randrange(0xD7FF))])
        text = text[:start] + middle + text[end:]
    return text


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes with 1 to 20 of them changed, a number put somewhere, or the end cut off."""
    changed = bytearray(content)
    ways: list[Callable[[], None]] = [
        lambda: changed.__setitem__(chance.randrange(len(changed)), chance.randrange(256)),
        lambda: _put(changed, chance),
        lambda: changed.__delitem__(slice(chance.randrange(8, len(changed)), None)),
    ]
    for _ in range(chance.randint(1, 20)):
        chance.choices(ways, (20, 10, 1))[0]()
    return bytes(changed)


def _put(changed: bytearray, chance: random.Random) -> None:
    """A number that is often wrong: 0, the highest, a power of two."""
    place = chance.randrange(0, max(1, len(changed) - 4)) & ~3
    number = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, 2 ** chance.randrange(32)])
    changed[place : place + 4] = number.to_bytes(4, "little")
