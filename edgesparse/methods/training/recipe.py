"""How models are trained on a dataset, and how their answers are judged.

Put together from what the pipeline says, what the model was compiled with, and what the task
suggests; kept with the dataset, so that every fine-tuning does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse import tasks
from edgesparse.data import Arrays, Dataset, Split, arrays
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.task import Tasks
from edgesparse.spec.training import Train
from edgesparse.tasks.evaluation import ModelTasks
from edgesparse.tasks.resolve import Output, Target, describe, resolve
from edgesparse.tasks.task import Metric, Task

_LOOKED_AT = 256
"""Samples that tell what kind of targets a dataset has."""


@dataclass(frozen=True)
class Compiled:
    """What a model was compiled with by its user; None where it was not."""

    loss: Any = None
    optimizer: Any = None
    metrics: tuple[Any, ...] = ()

    @property
    def learning_rate(self) -> float | None:
        """At its start."""
        if self.optimizer is None:
            return None
        rate = self.optimizer.learning_rate
        return float(rate(0)) if callable(rate) else float(rate)


@dataclass(frozen=True)
class Recipe(ModelTasks):
    """`inputs` and `targets` are the dataset's names, in the order of the model's inputs and
    outputs; `asked` is what a pipeline says of the task."""

    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    compiled: Compiled = field(default_factory=Compiled)
    base: Path = Path()
    loss_weights: tuple[float, ...] = ()
    asked: Tasks = field(default_factory=Tasks)
    ends: Mapping[str, str] = field(default_factory=dict)
    """The activation that each output ends in."""
    paired: tuple[str, ...] = ()
    """Which of several inputs or targets belong together by their order, not by their names."""

    @property
    def said(self) -> list[str]:
        """What is to be told of it before training."""
        lines = [f"task: {describe(self.resolved)}; {self.metric.name} counts", *self.paired]
        own = [n for n in ("loss", "optimizer") if getattr(self.compiled, n) is not None]
        if own:
            rate = self.compiled.learning_rate
            at = f", learning rate {rate:g}" if rate is not None else ""
            lines.append(f"training: the model's own compile() gives {' and '.join(own)}{at}")
        return lines


def compiled_with(model: tf.keras.Model, train: Train) -> Compiled:
    """What counts of a model's own compile(), where the pipeline says nothing else."""
    if getattr(model, "optimizer", None) is None:
        return Compiled()
    metrics = getattr(model.compiled_metrics, "_user_metrics", None) if train.metrics == [] else ()
    return Compiled(
        model.loss if train.loss is None else None,
        model.optimizer if train.optimizer is None else None,
        tuple(tf.nest.flatten(metrics)) if metrics else (),
    )


def put_together(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    spec: Tasks | None = None,
    metric: str | None = None,
    base: Path = Path(),
    compiled: Compiled | None = None,
) -> Recipe:
    """The recipe for a model and a dataset.

    Args:
        model: flat; what it is compiled with is in `compiled`.
        spec: what the pipeline says of the task; None or empty: found.
        metric: the name of the one that counts; None: the task's first.

    Raises:
        UsageError: they do not fit.
    """
    spec = spec or Tasks()
    compiled = compiled or Compiled()
    inputs = _ordered("input", model.input_names, [t.shape[1:] for t in model.inputs],
                      {n: t.shape for n, t in dataset.inputs.items()})  # fmt: skip
    found = outputs_of(model)
    targets = _targets(found, dataset)
    for name in [*spec.outputs, *spec.loss_weights]:
        known = [output.name for output in found]
        if name not in known:
            raise UsageError(f"the model has no output {name!r}{did_you_mean(name, known)}")
    logits = train.from_logits
    if logits is None and compiled.loss is not None:
        logits = takes_logits(compiled.loss)
    resolved = {
        output.name: resolve(
            spec.outputs.get(output.name, spec), output, target, dataset.class_names, logits
        )
        for output, target in zip(found, _facts(dataset, targets), strict=True)
    }
    built = {name: tasks.build(one, base) for name, one in resolved.items()}
    judged, chosen = _chosen(built, metric)
    single = next(iter(resolved.values()))
    return Recipe(
        built,
        single if len(resolved) == 1 else {"outputs": resolved},
        judged,
        chosen,
        inputs,
        targets,
        compiled,
        base,
        tuple(spec.loss_weights.get(name, 1.0) for name in built),
        spec,
        {output.name: output.activation for output in found},
        (
            *_by_order("inputs", model.input_names, inputs),
            *_by_order("outputs", model.output_names, targets),
        ),
    )


def _by_order(what: str, names: Sequence[str], given: Sequence[str]) -> list[str]:
    """What to say where the model's names are not the data's, and nobody can be sure."""
    if len(names) < 2 or tuple(names) == tuple(given):
        return []
    pairs = ", ".join(f"{name} = {own}" for name, own in zip(names, given, strict=True))
    return [f"{what} by their order, model = data: {pairs}"]


def outputs_of(model: tf.keras.Model) -> list[Output]:
    """The model's outputs, with the activation that each ends in."""
    found = []
    for name, tensor in zip(model.output_names, model.outputs, strict=True):
        found.append(Output(name, tuple(tensor.shape[1:]), _activation(tensor)))
    return found


def _activation(tensor: Any) -> str:
    layer = tensor.node.layer
    # Whatever only passes values on says nothing.
    while type(layer).__name__ in ("Reshape", "Flatten", "Dropout") and layer.inbound_nodes:
        tensor = tensor.node.keras_inputs[0]
        layer = tensor.node.layer
    kind = type(layer).__name__
    if kind == "Softmax":
        return "softmax"
    if kind == "TFOpLambda":
        return str(layer.get_config()["function"]).rpartition(".")[2]
    layer = getattr(layer, "layer", layer)  # Within a wrapper.
    activation = getattr(layer, "activation", None)
    return str(getattr(activation, "__name__", "linear"))


def takes_logits(loss: Any) -> bool | None:
    """What a loss of the user's own says of the outputs."""
    return getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits"))


def _ordered(
    what: str,
    names: Sequence[str],
    shapes: Sequence[Any],
    given: Mapping[str, tuple[int | None, ...]],
) -> tuple[str, ...]:
    """The dataset's names in the order of the model's."""
    if len(names) != len(given):
        raise UsageError(
            f"the model has {len(names)} {what}s ({', '.join(names)}) but the data has "
            f"{len(given)} ({', '.join(given)})"
        )
    by_name = set(names) == set(given)
    order = tuple(names) if by_name else tuple(given)
    for name, shape in zip(order, shapes, strict=True):
        wanted, found = tuple(shape), given[name]
        if len(wanted) != len(found) or any(
            w is not None and f is not None and w != f for w, f in zip(wanted, found, strict=True)
        ):
            one = f"its {what} {name} is" if len(names) > 1 else f"the model takes {list(wanted)}"
            if len(names) > 1:
                hint = "" if by_name else f"; the model's are called {', '.join(names)}"
                raise UsageError(f"{one} {list(wanted)} but the data gives {list(found)}{hint}")
            batched = found[1:] == wanted
            hint = "pass single samples: dataset.unbatch()" if batched else ""
            if len(found) > 2 and (*found[1:], found[0]) == wanted:
                hint = "the data has its channels first: np.moveaxis(x, 1, -1)"
            hint = hint or "set the input_shape of one of them"
            raise UsageError(f"{one} but the data gives {list(found)}; {hint}")
    return order


def _targets(outputs: Sequence[Output], dataset: Dataset) -> tuple[str, ...]:
    given, names = dataset.targets, [output.name for output in outputs]
    if len(given) != len(names):
        raise UsageError(
            f"the model has {len(names)} outputs ({', '.join(names)}) but the data has targets for "
            f"{len(given)} ({', '.join(given)}); give as many, by the names of the outputs"
        )
    return tuple(names) if set(names) == set(given) else tuple(given)


def _facts(dataset: Dataset, targets: Sequence[str]) -> list[Target]:
    _, y = arrays(dataset.train, _LOOKED_AT)
    found = []
    for name in targets:
        values = y[name]
        integer = values.dtype.kind in "iu"
        shape = tuple(values.shape[1:])
        if integer and shape == (1,):
            shape = ()
        binary = bool(np.isin(values, (0, 1)).all())
        lowest = int(values.min()) if integer else 0
        found.append(Target(name, shape, integer, binary, dataset.target_is_input, lowest))
    return found


def _chosen(built: Mapping[str, Task], wanted: str | None) -> tuple[str, Metric]:
    first = next(iter(built))
    if wanted is None:
        return first, built[first].metrics[0]
    for output, task in built.items():
        for metric in task.metrics:
            if wanted in (metric.name, f"{output} {metric.name}"):
                return output, metric
    known = [m.name for task in built.values() for m in task.metrics]
    raise UsageError(f"metric: the task has no {wanted!r}{did_you_mean(wanted, known)}")


def judged_targets(recipe: Recipe, x: Arrays, y: Arrays) -> Arrays:
    """Targets by output, as metrics take them."""
    found = {}
    for output, name in zip(recipe.tasks, recipe.targets, strict=True):
        values = y[name]
        own = recipe.resolved.get("outputs", {output: recipe.resolved})[output]
        if own.get("labels"):  # Of anomalies: the label and, behind it, what should come out.
            given = x[recipe.inputs[0]].reshape(len(values), -1)
            values = np.concatenate([values.reshape(len(values), 1), given], 1).astype(np.float32)
        found[output] = values
    return found


def named(recipe: Recipe, x: Any, y: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A sample's, or a batch's, inputs and targets by the dataset's names."""
    return (
        x if isinstance(x, Mapping) else {recipe.inputs[0]: x},
        y if isinstance(y, Mapping) else {recipe.targets[0]: y},
    )


def answers(ask: Callable[[Any], Any], x: Mapping[str, Any], recipe: Recipe) -> Arrays:
    """Outputs [n, ...] by name; `ask` gives a model's for its inputs."""
    given = [x[name] for name in recipe.inputs]
    found = ask(given[0] if len(given) == 1 else given)
    values = found if isinstance(found, list | tuple) else [found]
    return {name: np.asarray(v) for name, v in zip(recipe.tasks, values, strict=True)}


def asking(model: tf.keras.Model) -> Callable[[Any], Any]:
    """A model's inference, traced once however often it is asked."""
    found: Callable[[Any], Any] = tf.function(lambda x: model(x, training=False))
    return found


def answered(
    ask: Callable[[Any], Any], split: Split, recipe: Recipe, batch_size: int = 64
) -> tuple[Arrays, Arrays]:
    """A model's outputs over a split, and what they should be, by output."""
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in recipe.tasks}
    targets: dict[str, list[np.ndarray]] = {name: [] for name in recipe.tasks}
    for batch in split.samples.batch(batch_size):
        x, y = named(recipe, *batch[:2])
        for name, values in answers(ask, x, recipe).items():
            outputs[name].append(values)
        plain_x, plain_y = ({k: v.numpy() for k, v in given.items()} for given in (x, y))
        for name, wanted in judged_targets(recipe, plain_x, plain_y).items():
            targets[name].append(wanted)
    whole = [{name: np.concatenate(v) for name, v in found.items()} for found in (outputs, targets)]
    return whole[0], whole[1]


def evaluate(model: tf.keras.Model, split: Split, recipe: Recipe) -> dict[str, float]:
    """Every metric of a Keras model over a split."""
    return recipe.scores(*answered(asking(model), split, recipe))
