"""Stop before variants are created where the trained dense model is at chance level."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgesparse.commands.prediction.predict import ensure_artifacts
from edgesparse.graph.events import Listener
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.plan import Plan
from edgesparse.measure.evaluation import read_evaluator
from edgesparse.measure.rows import Score
from edgesparse.spec.errors import EdgesparseError
from edgesparse.stages import samples
from edgesparse.stages.base.artifacts import METRICS, read_json
from edgesparse.stages.base.stage import Stage

_DEVIATIONS = 1.96


def require_learned(plan: Plan, executor: Executor, listener: Listener) -> Callable[[Stage], None]:
    """Return a check to call after each stage.

    The check raises EdgesparseError where the stage trained a dense model that is at chance level,
    and variants that start from it are still missing.
    """
    variants = [
        stage
        for stage in plan.work
        if stage.name in ("sparsify", "quantize") and not executor.store.has(stage.key)
    ]
    trainings = {key for stage in variants for key in _before(plan, stage)}
    # The chance level follows from the targets.
    has_targets = bool(variants) and not ensure_artifacts(plan, [plan.samples], executor, listener)

    def check(stage: Stage) -> None:
        if not has_targets or stage.name != "train" or stage.key not in trainings:
            return
        why = _at_chance(plan, executor, stage.key)
        if why is not None:
            raise EdgesparseError(
                f"{stage.label}: {why}; look at data (its scale, its labels), loss and training; "
                "--force continues"
            )

    return check


def _before(plan: Plan, stage: Stage) -> set[str]:
    """Keys of all stages that a stage depends on."""
    stages = {other.key: other for other in plan.stages}
    keys: set[str] = set()
    queue = [stage.key]
    while queue:
        for key in stages[queue.pop()].inputs.values():
            if key in stages and key not in keys:
                keys.add(key)
                queue.append(key)
    return keys


def _at_chance(plan: Plan, executor: Executor, key: str) -> str | None:
    """Error text for a trained model that is not better than a constant answer, by its interval."""
    store, folder = executor.store, executor.store.path(plan.samples)
    if not (folder / samples.TASK).is_file():
        return None
    base = executor.context.loaded.folder
    evaluator = read_evaluator(read_json(folder / samples.TASK), folder / samples.TARGETS, base)
    metric, chance = evaluator.tasks.metric, evaluator.chance_level()
    value = read_json(store.path(key) / METRICS).get(evaluator.tasks.metric_name)
    if chance is None or value is None or not math.isfinite(value):
        return None
    name, share = evaluator.tasks.metric_name, metric.unit == "%"
    count, interval = evaluator.samples, None
    if share and 0 <= value <= 1:
        half = _DEVIATIONS * math.sqrt(value * (1 - value) / max(1, count))
        interval = (value - half, value + half)
    score = Score(
        name=name,
        unit=metric.unit,
        direction=metric.direction,
        host=value,
        ci95=interval,
        samples=count,
        chance_level=chance,
    )
    if not score.at_chance:  # The same rule as for rows.
        return None
    shown, always = (f"{v:.1%}" if share else f"{v:.4g}" for v in (value, chance))
    return (
        f"the dense model is at chance level: {name} {shown}, and always the same answer has "
        f"{always}"
    )
