"""The `search` section: a variant's template with ranges and choices, objectives, constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict


@dataclass(frozen=True)
class SearchDimension:
    """A value that a search samples: one of `options`, or a number from `low` to `high`."""

    path: str
    """Location in the variant, as "sparsify.sparsity"."""
    options: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False
    """Sample integers only."""


Chooser = Callable[[SearchDimension], Any]
"""Returns the index of an option, or a number."""


def fill_template(template: Any, choose: Chooser, path: str = "") -> Any:
    """Return a variant's template with every `{range: ...}` and `{choice: ...}` replaced.

    Args:
        template: a variant, or a part of it.
        choose: samples a value for a dimension.
        path: location of the part in the variant.

    Raises:
        ValueError: a range or choice is invalid.
    """
    if isinstance(template, list):
        return [fill_template(item, choose, f"{path}.{i}") for i, item in enumerate(template)]
    if not isinstance(template, dict):
        return template
    if "choice" in template:
        dimension = _choice(template, path)
        index = choose(dimension)
        # The index is part of the path: another option can have the same keys.
        inside = path if _plain(dimension.options) else f"{path}[{index}]"
        return fill_template(dimension.options[index], choose, inside)
    if "range" in template:
        return choose(_range(template, path))
    return {
        key: fill_template(item, choose, f"{path}.{key}".lstrip("."))
        for key, item in template.items()
    }


def _plain(options: tuple[Any, ...]) -> bool:
    return not any(isinstance(option, dict | list) for option in options)


def _choice(template: dict[str, Any], path: str) -> SearchDimension:
    options = template["choice"]
    if set(template) != {"choice"} or not isinstance(options, list) or not options:
        raise ValueError(f"{path or 'variant'}: a choice is {{choice: [one, another]}}")
    return SearchDimension(path, tuple(options))


def _range(template: dict[str, Any], path: str) -> SearchDimension:
    ends, step, log = template["range"], template.get("step"), template.get("log", False)
    numbers = [*ends, 1 if step is None else step] if isinstance(ends, list) else []
    good = (
        not set(template) - {"range", "step", "log"}
        and len(numbers) == 3
        and all(type(number) in (int, float) for number in numbers)
        and numbers[0] < numbers[1]
        and numbers[2] > 0
        and isinstance(log, bool)
    )
    if not good:
        raise ValueError(f"{path}: a range is {{range: [low, high]}}, with 'step' or 'log: true'")
    if log and (step is not None or ends[0] <= 0):
        raise ValueError(f"{path}: 'log: true' needs a low end above 0, and goes without 'step'")
    whole = all(type(number) is int for number in numbers)
    return SearchDimension(path, (), ends[0], ends[1], step, log, whole)


class Constraint(Strict):
    """A limit that a trial must keep to be on the front."""

    metric: str = Field(description="Metric as in gates: accuracy_drop, bytes, p50_ms ...")
    min: float | None = Field(None, description="The value must be at least this.")
    max: float | None = Field(None, description="The value must be at most this.")


class Search(Strict):
    """The search space and objectives of `edgesparse search`."""

    variant: dict[str, Any] = Field(
        description="A variant in which {choice: [a, b]} or {range: [low, high]}, with 'step' or "
        "'log: true', can replace any value: widths of its own model, methods, patterns, "
        "epochs, schemes; a range of integers gives integers, and options may hold ranges."
    )
    objectives: list[str] = Field(
        min_length=1,
        max_length=3,
        description="Metrics to optimize: one of the task, its drop, or p50_ms, p90_ms, p99_ms, "
        "bytes, speedup, peak_rss_bytes.",
    )
    constraints: list[Constraint] = Field(
        [], description="Limits that a trial must keep to be on the front; the sampler uses them."
    )
    sampler: Literal["tpe", "nsga2", "random"] = Field(
        "tpe", description="Optuna's sampler: TPE, NSGA-II or random."
    )
    parallel_trials: int = Field(
        4, ge=1, le=64, description="Trials that are chosen, made and measured together."
    )
    seed: int = Field(7, ge=0, le=2**31, description="The same seed tries the same variants.")

    @field_validator("objectives")
    @classmethod
    def _different(cls, objectives: list[str]) -> list[str]:
        if len(set(objectives)) < len(objectives):
            raise PydanticCustomError("objectives", "duplicate objective")
        return objectives

    def examples(self) -> Iterator[dict[str, Any]]:
        """Yield variants that validate the template: all low ends, all high ends, and each option
        in turn."""
        for last in (False, True):
            yield fill_template(self.variant, lambda hole, last=last: _end(hole, last))  # type: ignore[misc]
        seen: list[SearchDimension] = []
        fill_template(self.variant, lambda hole: seen.append(hole) or _end(hole, False))  # type: ignore[func-returns-value]
        for dimension in seen:
            for index in range(len(dimension.options)):
                yield fill_template(
                    self.variant,
                    lambda hole, dimension=dimension, index=index: (  # type: ignore[misc]
                        index if hole.path == dimension.path and hole.options else _end(hole, False)
                    ),
                )


def _end(dimension: SearchDimension, last: bool) -> Any:
    if dimension.options:
        return len(dimension.options) - 1 if last else 0
    value = dimension.high if last else dimension.low
    return int(value) if dimension.whole else float(value)
