"""Training on several accelerators, by TensorFlow's distribution strategies."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.training import Train


def prepare(train: Train) -> None:
    """Configure logical CPUs where they are named, before TensorFlow lists its devices."""
    named = [name for name in train.strategy.devices if name.startswith("CPU:")]
    highest = max((int(name.partition(":")[2]) for name in named), default=0)
    if highest:
        (cpu, *_) = tf.config.list_physical_devices("CPU")
        several = [tf.config.LogicalDeviceConfiguration()] * (highest + 1)
        try:
            tf.config.set_logical_device_configuration(cpu, several)
        except RuntimeError as error:
            raise EdgesparseError(f"train.strategy: {error}") from error


def scope(train: Train) -> AbstractContextManager[Any]:
    """Return the context in which a model is built, compiled and trained. The gradients of the
    replicas, each of its share of a batch, are summed (Goyal et al. 2017, arXiv 1706.02677).

    Raises:
        UsageError: a device is missing, or the batch is too small.
    """
    if train.strategy.name == "none":
        return nullcontext()
    available = [d.name.removeprefix("/device:") for d in tf.config.list_logical_devices()]
    for name in train.strategy.devices:
        if name not in available:
            raise UsageError(f"train.strategy: no device {name}; available: {', '.join(available)}")
    count = len(train.strategy.devices) or max(1, sum(n.startswith("GPU") for n in available))
    if train.batch_size < count:
        raise UsageError(
            f"train.strategy: a batch of {train.batch_size} cannot be shared by {count} devices"
        )
    return tf.distribute.MirroredStrategy(list(train.strategy.devices) or None).scope()
