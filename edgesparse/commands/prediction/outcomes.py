"""Something that is known before training, and whether it came true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgesparse.measure.rows import PAYS_FROM, Row

Kind = Literal["said", "note", "fails", "partial", "slow"]
"""said: for `plan` only; fails: the variant; partial: its coverage; slow: its zeros gain no time.
Where it is so, a row says itself that it failed or is partial."""


@dataclass(frozen=True)
class Foreseen:
    """`text` follows the names of the variants; `runtimes` are those that it is about, or all."""

    kind: Kind
    text: str
    variants: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def line(self) -> str:
        """What is told."""
        return self.prefix + self.text.replace("{variants}", ", ".join(self.variants))


def came_true(foreseen: Iterable[Foreseen], rows: Sequence[Row]) -> list[str]:
    """The lines that are worth being read again once everything was measured."""
    lines = []
    for one in foreseen:
        if one.kind == "note":
            lines.append(one.line)
        elif one.kind == "slow":
            still = tuple(v for v in one.variants if not _gained(one, v, rows))
            if still:
                lines.append(Foreseen("slow", one.text, still, one.runtimes, one.prefix).line)
    return lines


def _gained(one: Foreseen, variant: str, rows: Sequence[Row]) -> bool:
    """Whether it was wrong about a variant, or there is no row that could tell."""
    own = [r for r in rows if r.variant == variant and r.runtime.name in one.runtimes]
    measured = [row for row in own if row.status == "ok"]
    # Where channels went, too, a gain is theirs, unless the runtime is known to skip the zeros.
    telling = [r for r in measured if "channels" not in r.steps or r.zeros_exploited]
    gains = [row.speedup_vs_dense for row in telling if row.speedup_vs_dense is not None]
    # What is known of a runtime is given up for a gain that is plain, not for a busy machine's.
    faster = any(g.ci95[0] >= PAYS_FROM for g in gains)
    return faster or (bool(own) and not measured)
