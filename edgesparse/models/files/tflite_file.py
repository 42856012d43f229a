"""A .tflite file as a Keras model, to be quantized and measured, not trained."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.spec.errors import UsageError, cause_of


class TFLiteGraph(tf.keras.layers.Layer):
    """A .tflite file as a layer, whose interpreter runs sample by sample.

    Inputs and outputs: those of its signature, [batch, ...].
    """

    def __init__(self, content: bytes, **named: Any) -> None:
        from ai_edge_litert.interpreter import Interpreter

        super().__init__(trainable=False, **named)
        self.content = content
        interpreter = Interpreter(model_content=content)
        signature, *_ = interpreter.get_signature_list()
        self._runner = interpreter.get_signature_runner(signature)
        # TensorFlow calls it from its threads.
        self._lock = threading.Lock()
        self.inputs: dict[str, Any] = self._runner.get_input_details()
        self.outputs: dict[str, Any] = self._runner.get_output_details()

    def call(self, inputs: Any) -> list[tf.Tensor]:
        dtypes = [tf.as_dtype(detail["dtype"]) for detail in self.outputs.values()]
        # In eager mode it returns a single result outside of a list.
        results = tf.nest.flatten(
            tf.numpy_function(self._run, tf.nest.flatten(inputs), dtypes, stateful=False)
        )
        for result, detail in zip(results, self.outputs.values(), strict=True):
            result.set_shape((None, *detail["shape"][1:]))
        return results

    def _run(self, *batch: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        rows = []
        with self._lock:
            for row in zip(*batch, strict=True):
                named = {name: v[None] for name, v in zip(self.inputs, row, strict=True)}
                rows.append(self._runner(**named))
        return [
            np.concatenate([row[name] for row in rows])
            if rows
            else np.zeros((0, *detail["shape"][1:]), detail["dtype"])
            for name, detail in self.outputs.items()
        ]


def read(path: Path) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """Load a .tflite file with a batch of 1, with notes; inputs and outputs have its names.

    Raises:
        UsageError: it cannot be loaded.
    """
    try:
        graph = TFLiteGraph(path.read_bytes(), name="tflite_graph")
    except (ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"{path.name} cannot be read: {cause_of(error)}") from error
    inputs = [
        tf.keras.Input(tuple(detail["shape"][1:]), dtype=detail["dtype"], name=name)
        for name, detail in graph.inputs.items()
    ]
    outputs = [
        tf.keras.layers.Activation("linear", name=name)(output)
        for name, output in zip(graph.outputs, graph(inputs), strict=True)
    ]
    return tf.keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs), ()


def content_of(model: tf.keras.Model) -> bytes | None:
    """Return the file that a model of `read` runs; None for other models."""
    graphs = [layer for layer in model.layers if isinstance(layer, TFLiteGraph)]
    return graphs[0].content if graphs else None
