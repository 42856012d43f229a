"""Multiply-accumulates are counted the same in the network and in its file."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from edgesparse import data
from edgesparse.methods.channels import channels
from edgesparse.methods.network.cost import cost
from edgesparse.methods.network.dependencies import trace
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Channels
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.macs import count_macs, operator_macs
from tests.methods.conftest import quiet
from tests.methods.networks import BUILDERS

pytestmark = pytest.mark.slow
L = tf.keras.layers
LOOPS = ("gru",)
"""How often a loop goes round is not in a file."""
NETWORKS = (
    "attention", "conv1d", "conv2d, branches", "conv2d, locally connected", "depthwise", "einsum",
    "embedding", "grouped conv2d", "lstm", "own layer", "separable conv2d", "transformer",
    "transposed", "two attentions", *LOOPS,
)  # fmt: skip


def in_file(model):
    empty = [np.zeros((1, *t.shape[1:]), t.dtype.as_numpy_dtype) for t in model.inputs]
    return inspect(convert(model, "f32", empty)).macs


def in_network(model):
    result = trace(model)
    return cost(result, np.ones(len(result.fixed), bool)).macs


@pytest.mark.parametrize("name", NETWORKS)
def test_network_and_file_agree(name):
    tf.keras.backend.clear_session()
    model = BUILDERS[name]()
    assert in_file(model) == (None if name in LOOPS else in_network(model))


def bottlenecks(groups):
    """As RegNet and ResNeXt: 1x1, grouped 3x3, 1x1, with what the tracing cannot follow."""
    x = inputs = tf.keras.Input((8, 8, 1))
    for _ in range(2):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(32, 1, use_bias=False)(x)))
        x = L.Conv2D(32, 3, padding="same", groups=groups, use_bias=False)(x)
        x = L.Conv2D(64, 1, use_bias=False)(L.ReLU()(L.BatchNormalization()(x)))
    x = L.Conv2D(16, 3, name="mixing")(L.Lambda(lambda t: t[..., ::-1])(x))
    return tf.keras.Model(inputs, L.Dense(10, "softmax")(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("groups", [2, pytest.param(16, marks=pytest.mark.full)])
def test_a_budget_is_that_of_the_file(groups):
    tf.keras.backend.clear_session()
    model = bottlenecks(groups)
    spec = Channels(method="channels", macs=0.5, epochs=0)
    x = np.random.default_rng(0).random((20, *model.input_shape[1:]), dtype=np.float32)
    dataset = data.from_arrays("images", x, np.arange(20) % 2)
    done = channels(model, dataset, Train(epochs=0), spec, quiet)
    share = in_file(done.model) / in_file(model)
    assert 0.35 < share <= 0.5
    assert f"{share:.0%} of the multiply-accumulates" in done.notes[0]
    assert {layer.groups for layer in done.model.layers if "conv" in layer.name} != {1}


@pytest.mark.parametrize(
    ("first", "output", "expected"),
    [
        ((2, 3), (2, 5), 30),
        ((), (2, 5), None),  # A dynamic rank.
        ((2, 2**31 - 1), (2**31 - 1, 2**31 - 1), None),  # More than any network has.
    ],
)
def test_shapes_that_do_not_determine_macs_give_none(first, output, expected):
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.BATCH_MATMUL
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptions = schema.BatchMatMulOptionsT()
    graph = schema.SubGraphT()
    graph.tensors = [schema.TensorT() for _ in range(3)]
    for tensor, shape in zip(graph.tensors, (first, (3, 5), output), strict=True):
        tensor.shape = shape
    graph.operators = [operator]
    model = schema.ModelT()
    model.operatorCodes, model.subgraphs = [code], [graph]
    assert operator_macs(model, graph, operator) == expected
    assert count_macs(model) == expected
