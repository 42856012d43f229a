"""Recipes: the settings of training and evaluation of models on a dataset.

Built from the pipeline, the model's own compile() and the task's defaults, in this order; stored
with the dataset, so that every fine-tuning uses the same.
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
from edgesparse.tasks.model_tasks import ModelTasks
from edgesparse.tasks.resolve import Output, Target, describe, resolve
from edgesparse.tasks.task import Metric, Task

_LOOKED_AT = 256
"""Samples from which the kind of a dataset's targets is inferred."""


@dataclass(frozen=True)
class Compiled:
    """Arguments of a model's own compile(); None where it was not compiled."""

    loss: Any = None
    optimizer: Any = None
    metrics: tuple[Any, ...] = ()

    @property
    def learning_rate(self) -> float | None:
        """Initial learning rate."""
        if self.optimizer is None:
            return None
        rate = self.optimizer.learning_rate
        return float(rate(0)) if callable(rate) else float(rate)


@dataclass(frozen=True)
class Recipe(ModelTasks):
    """Settings of training and evaluation.

    `inputs` and `targets` are the dataset's names, in the order of the model's inputs and outputs;
    `task_spec` is the pipeline's `task`.
    """

    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    compiled: Compiled = field(default_factory=Compiled)
    base: Path = Path()
    loss_weights: tuple[float, ...] = ()
    task_spec: Tasks = field(default_factory=Tasks)
    output_activations: Mapping[str, str] = field(default_factory=dict)
    """Activation function at the end of each output, by the output's name."""
    pairing_notes: tuple[str, ...] = ()
    """Notes on inputs or targets that were matched by order, not by name."""

    @property
    def notes(self) -> list[str]:
        """Notes for the user before training."""
        lines = [f"task: {describe(self.resolved)}; {self.metric.name} counts", *self.pairing_notes]
        parts = [n for n in ("loss", "optimizer") if getattr(self.compiled, n) is not None]
        if parts:
            rate = self.compiled.learning_rate
            at = f", learning rate {rate:g}" if rate is not None else ""
            lines.append(f"training: {' and '.join(parts)} from the model's own compile(){at}")
        return lines


def compiled_args(model: tf.keras.Model, train: Train) -> Compiled:
    """Return the arguments of a model's own compile() that the pipeline does not override."""
    if getattr(model, "optimizer", None) is None:
        return Compiled()
    metrics = getattr(model.compiled_metrics, "_user_metrics", None) if train.metrics == [] else ()
    return Compiled(
        model.loss if train.loss is None else None,
        model.optimizer if train.optimizer is None else None,
        tuple(tf.nest.flatten(metrics)) if metrics else (),
    )


def build_recipe(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    spec: Tasks | None = None,
    metric: str | None = None,
    base: Path = Path(),
    compiled: Compiled | None = None,
) -> Recipe:
    """Build the recipe for a model and a dataset.

    Args:
        model: a flat functional model.
        dataset: its data.
        train: the pipeline's training settings.
        spec: the pipeline's `task`; None or empty: inferred.
        metric: name of the primary metric; None: the task's first.
        base: folder of the pipeline's file.
        compiled: arguments of the model's own compile().

    Raises:
        UsageError: model, data and task do not fit.
    """
    spec = spec or Tasks()
    compiled = compiled or Compiled()
    inputs = _ordered("input", model.input_names, [t.shape[1:] for t in model.inputs],
                      {n: t.shape for n, t in dataset.inputs.items()})  # fmt: skip
    outputs = outputs_of(model)
    targets = _targets(outputs, dataset)
    _check_names([*spec.outputs, *spec.loss_weights], [output.name for output in outputs])
    logits = train.from_logits
    if logits is None and compiled.loss is not None:
        logits = takes_logits(compiled.loss)
    resolved = {
        output.name: resolve(
            spec.outputs.get(output.name, spec), output, target, dataset.class_names, logits
        )
        for output, target in zip(outputs, _facts(dataset, targets), strict=True)
    }
    built = {name: tasks.build(resolved_task, base) for name, resolved_task in resolved.items()}
    primary, chosen = _chosen(built, metric)
    single = next(iter(resolved.values()))
    return Recipe(
        built,
        single if len(resolved) == 1 else {"outputs": resolved},
        primary,
        chosen,
        inputs,
        targets,
        compiled,
        base,
        tuple(spec.loss_weights.get(name, 1.0) for name in built),
        spec,
        {output.name: output.activation for output in outputs},
        (
            *_by_order("inputs", model.input_names, inputs),
            *_by_order("outputs", model.output_names, targets),
        ),
    )


def _by_order(what: str, names: Sequence[str], data_names: Sequence[str]) -> list[str]:
    """Return a note where several inputs or outputs are matched by order, since names differ."""
    if len(names) < 2 or tuple(names) == tuple(data_names):
        return []
    pairs = ", ".join(
        f"{name} = {data_name}" for name, data_name in zip(names, data_names, strict=True)
    )
    return [f"{what} by their order, model = data: {pairs}"]


def outputs_of(model: tf.keras.Model) -> list[Output]:
    """Return the model's outputs, with the activation function at the end of each."""
    outputs = []
    for name, tensor in zip(model.output_names, model.outputs, strict=True):
        outputs.append(Output(name, tuple(tensor.shape[1:]), _activation(tensor)))
    return outputs


def _activation(tensor: Any) -> str:
    layer = tensor.node.layer
    # These layers pass values on.
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
    """Return a loss's from_logits; None where it has none."""
    return getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits"))


def _ordered(
    what: str,
    names: Sequence[str],
    shapes: Sequence[Any],
    data_shapes: Mapping[str, tuple[int | None, ...]],
) -> tuple[str, ...]:
    """Return the dataset's names in the order of the model's inputs."""
    if len(names) != len(data_shapes):
        raise UsageError(
            f"the model has {len(names)} {what}s ({', '.join(names)}) but the data has "
            f"{len(data_shapes)} ({', '.join(data_shapes)})"
        )
    by_name = set(names) == set(data_shapes)
    order = tuple(names) if by_name else tuple(data_shapes)
    for name, shape in zip(order, shapes, strict=True):
        expected, actual = tuple(shape), data_shapes[name]
        if len(expected) != len(actual) or any(
            w is not None and f is not None and w != f
            for w, f in zip(expected, actual, strict=True)
        ):
            subject = (
                f"its {what} {name} is" if len(names) > 1 else f"the model takes {list(expected)}"
            )
            if len(names) > 1:
                hint = "" if by_name else f"; the model's are called {', '.join(names)}"
                raise UsageError(
                    f"{subject} {list(expected)} but the data gives {list(actual)}{hint}"
                )
            batched = actual[1:] == expected
            hint = "pass single samples: dataset.unbatch()" if batched else ""
            if len(actual) > 2 and (*actual[1:], actual[0]) == expected:
                hint = "the data has its channels first: np.moveaxis(x, 1, -1)"
            hint = hint or "set the input_shape of one of them"
            raise UsageError(f"{subject} but the data gives {list(actual)}; {hint}")
    return order


def _check_names(used: Sequence[str], outputs: Sequence[str]) -> None:
    for name in used:
        if name not in outputs:
            raise UsageError(f"the model has no output {name!r}{did_you_mean(name, outputs)}")


def _targets(outputs: Sequence[Output], dataset: Dataset) -> tuple[str, ...]:
    targets, names = dataset.targets, [output.name for output in outputs]
    if len(targets) != len(names):
        raise UsageError(
            f"the model has {len(names)} outputs ({', '.join(names)}) but the data has targets for "
            f"{len(targets)} ({', '.join(targets)}); provide a target for each, by its name"
        )
    return tuple(names) if set(names) == set(targets) else tuple(targets)


def _facts(dataset: Dataset, targets: Sequence[str]) -> list[Target]:
    _, y = arrays(dataset.train, _LOOKED_AT)
    described = []
    for name in targets:
        values = y[name]
        integer = values.dtype.kind in "iu"
        shape = tuple(values.shape[1:])
        if integer and shape == (1,):
            shape = ()
        binary = bool(np.isin(values, (0, 1)).all())
        lowest = int(values.min()) if integer else 0
        described.append(Target(name, shape, integer, binary, dataset.target_is_input, lowest))
    return described


def _chosen(built: Mapping[str, Task], name: str | None) -> tuple[str, Metric]:
    first = next(iter(built))
    if name is None:
        return first, built[first].metrics[0]
    for output, task in built.items():
        for metric in task.metrics:
            if name in (metric.name, f"{output} {metric.name}"):
                return output, metric
    names = [m.name for task in built.values() for m in task.metrics]
    raise UsageError(f"metric: the task has no {name!r}{did_you_mean(name, names)}")


def evaluation_targets(recipe: Recipe, x: Arrays, y: Arrays) -> Arrays:
    """Return targets by output, in the form that metrics take."""
    targets = {}
    for output, name in zip(recipe.tasks, recipe.targets, strict=True):
        values = y[name]
        task = recipe.resolved.get("outputs", {output: recipe.resolved})[output]
        if task.get("labels"):  # Of anomalies: the label and, behind it, what should come out.
            inputs = x[recipe.inputs[0]].reshape(len(values), -1)
            values = np.concatenate([values.reshape(len(values), 1), inputs], 1).astype(np.float32)
        targets[output] = values
    return targets


def by_name(recipe: Recipe, x: Any, y: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return inputs and targets of a sample, or a batch, by the dataset's names."""
    return (
        x if isinstance(x, Mapping) else {recipe.inputs[0]: x},
        y if isinstance(y, Mapping) else {recipe.targets[0]: y},
    )


def predict(infer: Callable[[Any], Any], x: Mapping[str, Any], recipe: Recipe) -> Arrays:
    """Outputs [n, ...] by name; `ask` gives a model's for its inputs."""
    inputs = [x[name] for name in recipe.inputs]
    outputs = infer(inputs[0] if len(inputs) == 1 else inputs)
    values = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {name: np.asarray(v) for name, v in zip(recipe.tasks, values, strict=True)}


def inference(model: tf.keras.Model) -> Callable[[Any], Any]:
    """Return a model's inference as a function that is traced once."""
    infer: Callable[[Any], Any] = tf.function(lambda x: model(x, training=False))
    return infer


def predict_split(
    infer: Callable[[Any], Any], split: Split, recipe: Recipe, batch_size: int = 64
) -> tuple[Arrays, Arrays]:
    """Return a model's outputs over a split, and the targets, by output."""
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in recipe.tasks}
    targets: dict[str, list[np.ndarray]] = {name: [] for name in recipe.tasks}
    for batch in split.samples.batch(batch_size):
        x, y = by_name(recipe, *batch[:2])
        for name, values in predict(infer, x, recipe).items():
            outputs[name].append(values)
        plain_x, plain_y = ({k: v.numpy() for k, v in tensors.items()} for tensors in (x, y))
        for name, target in evaluation_targets(recipe, plain_x, plain_y).items():
            targets[name].append(target)
    whole = [{name: np.concatenate(v) for name, v in part.items()} for part in (outputs, targets)]
    return whole[0], whole[1]


def evaluate(model: tf.keras.Model, split: Split, recipe: Recipe) -> dict[str, float]:
    """Compute every metric of a Keras model over a split."""
    return recipe.scores(*predict_split(inference(model), split, recipe))
