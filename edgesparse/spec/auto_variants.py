"""Variants that nobody writes down one by one: what `variants: auto` stands for, and what a
`search` tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Strict

EPOCHS = 10
"""Of fine-tuning, where training has more."""


def default_variants(train_epochs: int) -> dict[str, Any]:
    """Variants by name, as a pipeline file has them: dense ones, fewer channels, half precision,
    zeros that XNNPACK skips in convolutions, both, and blocks for fully connected layers. A device
    leaves out those that gain nothing there. Without training, what needs none."""
    if not train_epochs:
        return untrained_variants(0.7)
    epochs = max(1, min(EPOCHS, train_epochs))
    channels = {"method": "channels", "macs": 0.4, "epochs": epochs}
    magnitude = {"method": "magnitude", "epochs": epochs}
    return {
        "dense-f32": {},
        "dense-int8": {"quantize": "int8"},
        "channels-int8": {"sparsify": channels, "quantize": "int8"},
        "half-f16": {"quantize": {"scheme": "f16", "compute": "f16"}},
        "sparse-f32": {"sparsify": {**magnitude, "sparsity": 0.85}},
        "channels-sparse-f32": {"sparsify": [channels, {**magnitude, "sparsity": 0.8}]},
        "blocks-f32": {"sparsify": {**magnitude, "sparsity": 0.9, "pattern": "block-1x4"}},
        "blocks-int8": {
            "sparsify": {**magnitude, "sparsity": 0.9, "pattern": "block-1x16"},
            "quantize": "int8",
        },
    }


def untrained_variants(sparsity: float) -> dict[str, Any]:
    """The same for a model that is trained already, without its labels."""
    one_shot = {"method": "one-shot", "sparsity": sparsity, "allow_partial": True}
    return {
        "dense-f32": {},
        "dense-int8": {"quantize": "int8"},
        "half-f16": {"quantize": {"scheme": "f16", "compute": "f16"}},
        "sparse-f32": {"sparsify": one_shot},
        "blocks-f32": {"sparsify": {**one_shot, "pattern": "block-1x4"}},
        "blocks-int8": {"sparsify": {**one_shot, "pattern": "block-1x16"}, "quantize": "int8"},
    }


@dataclass(frozen=True)
class SearchDimension:
    """A value that a search chooses: one of `options`, or a number from `low` to `high`."""

    path: str
    """Where it stands in the variant, as "sparsify.sparsity"."""
    options: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False
    """Whether it is an integer."""


Chooser = Callable[[SearchDimension], Any]
"""An option's place, or a number."""


def fill_template(template: Any, choose: Chooser, path: str = "") -> Any:
    """A template of a variant with every `{range: ...}` and `{choice: ...}` in it replaced.

    Raises ValueError for one that is none.
    """
    if isinstance(template, list):
        return [fill_template(one, choose, f"{path}.{i}") for i, one in enumerate(template)]
    if not isinstance(template, dict):
        return template
    if "choice" in template:
        hole = _choice(template, path)
        place = choose(hole)
        # What stands in an option belongs to it alone: another may have the same keys.
        inside = path if _plain(hole.options) else f"{path}[{place}]"
        return fill_template(hole.options[place], choose, inside)
    if "range" in template:
        return choose(_range(template, path))
    return {
        key: fill_template(one, choose, f"{path}.{key}".lstrip("."))
        for key, one in template.items()
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
    """What a trial must keep to be chosen."""

    metric: str = Field(description="As a gate's: accuracy_drop, bytes, p50_ms ...")
    min: float | None = Field(None, description="The value must be at least this.")
    max: float | None = Field(None, description="The value must be at most this.")


class Search(Strict):
    """What `edgesparse sweep` tries, and what it looks for."""

    variant: dict[str, Any] = Field(
        description="A variant in which {choice: [a, b]} or {range: [low, high]}, with 'step' or "
        "'log: true', may stand for any value."
    )
    objectives: list[str] = Field(
        min_length=1,
        max_length=3,
        description="What is to be good: a metric of the task, its drop, or p50_ms, p90_ms, "
        "p99_ms, bytes, speedup, peak_rss_bytes.",
    )
    constraints: list[Constraint] = Field(
        [], description="What a trial must keep to be on the front."
    )
    sampler: Literal["tpe", "nsga2", "random"] = Field(
        "tpe", description="How Optuna chooses: by what was good (TPE), by evolution, or blindly."
    )
    parallel_trials: int = Field(
        4, ge=1, le=64, description="Trials that are chosen, made and measured together."
    )
    seed: int = Field(7, ge=0, le=2**31, description="The same seed tries the same variants.")

    @field_validator("objectives")
    @classmethod
    def _different(cls, given: list[str]) -> list[str]:
        if len(set(given)) < len(given):
            raise PydanticCustomError("objectives", "an objective stands there twice")
        return given

    def examples(self) -> Iterator[dict[str, Any]]:
        """Variants that show whether the template is one: with its low ends, its high ends, and
        each option in turn."""
        for last in (False, True):
            yield fill_template(self.variant, lambda hole, last=last: _end(hole, last))  # type: ignore[misc]
        seen: list[SearchDimension] = []
        fill_template(self.variant, lambda hole: seen.append(hole) or _end(hole, False))  # type: ignore[func-returns-value]
        for one in seen:
            for place in range(len(one.options)):
                yield fill_template(
                    self.variant,
                    lambda hole, one=one, place=place: (  # type: ignore[misc]
                        place if hole.path == one.path and hole.options else _end(hole, False)
                    ),
                )


def _end(hole: SearchDimension, last: bool) -> Any:
    if hole.options:
        return len(hole.options) - 1 if last else 0
    value = hole.high if last else hole.low
    return int(value) if hole.whole else float(value)
