"""Inputs that are resized, shapes that are known only while a model runs, several subgraphs: the
delegate's answers stay XNNPACK's, and no model fails because of it."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate

from edgesparse.delegate.constants import CPUS
from edgesparse.tflite.runtimes.delegated import claim, read_network
from tests.delegate.test_answers import ISAS
from tests.tools.delegate_answers import OPTIONS, delegated, library_here
from tests.tools.int8_model import Int8Model, Result, Window, Zeros

SPARSE = Zeros(0.8)
SHAPES = ((1, 9, 7, 12), (3, 9, 7, 12), (1, 33, 20, 12), (2, 4, 5, 12), (1, 9, 7, 12))


def both(content, isa=""):
    """An interpreter with XNNPACK, and one with the delegate."""
    options = {**OPTIONS, **({"isa": isa} if isa else {})}
    delegates = [load_delegate(str(library_here()), options)]
    return [Interpreter(model_content=content, experimental_delegates=d) for d in (None, delegates)]


def answer(interpreter, *inputs):
    """The first output for inputs in their order."""
    for source, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(source["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def values_of(shape):
    return np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)


def convolutions(m, x):
    """A depthwise and a pointwise convolution, and one with a stride."""
    x = m.depthwise(x, Zeros().weights(m.rng, (1, 3, 3, 12)))
    x = m.conv(x, SPARSE.weights(m.rng, (20, 1, 1, 12)))
    return m.conv(x, SPARSE.weights(m.rng, (8, 3, 3, 20)), Window((3, 3), (2, 2), (1, 1), "VALID"))


def every_operator(m, x):
    """Convolutions, a PAD that they take in and one that stays, sums, pools, a dense layer."""
    x = m.conv(x, SPARSE.weights(m.rng, (16, 1, 1, 12)))
    y = m.pad(x, (1, 1, 1, 1))
    y = m.conv(y, SPARSE.weights(m.rng, (16, 3, 3, 16)), Window((3, 3), padding="VALID"))
    x = m.add(x, y, Result(0.05, -3, "NONE"))
    x = m.pool(m.pad(x, (0, 1, 1, 0)), "MAX", Window((2, 2), (2, 2)))
    x = m.pool(x, "AVERAGE", Window((3, 3)), "RELU")
    x = m.conv(x, SPARSE.weights(m.rng, (24, 1, 1, 16)))
    return m.dense(m.mean(x), SPARSE.weights(m.rng, (10, 24)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("network", "densify"), [(convolutions, None), (every_operator, "outputs")]
)
def test_inputs_that_are_resized(isa, network, densify):
    m = Int8Model(np.random.default_rng(0))
    content = m.finish(network(m, m.input(SHAPES[0], 0.02, 3)), densify=densify)
    plain, ours = both(content, isa)
    source = plain.get_input_details()[0]["index"]
    for shape in SHAPES:
        for interpreter in (plain, ours):
            interpreter.resize_tensor_input(source, shape)
            interpreter.allocate_tensors()
        a, b = (answer(interpreter, values_of(shape)) for interpreter in (plain, ours))
        np.testing.assert_array_equal(a, b)
        assert np.ptp(a.astype(int)) > 20
    assert not delegated(ours)[1]


def behind_an_input_of_sizes():
    """A network behind a RESHAPE whose shape is an input of the model."""
    m = Int8Model(np.random.default_rng(0))
    x = m.input((756,), 0.02, 3)
    sizes = m._tensor((4,), schema.TensorType.INT32, None, 0, 0, 0)
    m.graph.inputs.append(sizes)
    options = schema.ReshapeOptionsT(newShape=[])
    result = Result(x.scale, x.zero_point, "")
    image = m._operator("RESHAPE", 1, [x.index, sizes], (1, 9, 7, 12), result, options)
    return m.finish(convolutions(m, image))


def test_shapes_that_are_known_only_while_it_runs():
    plain, ours = both(behind_an_input_of_sizes())
    for interpreter in (plain, ours):
        interpreter.allocate_tensors()
    for shape in ((1, 9, 7, 12), (1, 7, 9, 12), (3, 7, 3, 12), (1, 21, 3, 12), (1, 9, 7, 12)):
        a, b = (answer(i, values_of((756,)), np.array(shape, np.int32)) for i in (plain, ours))
        assert b.shape[0] == shape[0]
        np.testing.assert_array_equal(a, b)
    assert delegated(ours)[0]["CONV_2D"] == 2


def scalar(m, kind):
    index = m._tensor((), kind, None, 0, 0, 0)
    m.graph.inputs.append(index)
    return index


def with_branches():
    """IF: a convolution before it, and others in each branch."""
    m = Int8Model(np.random.default_rng(0))
    condition = scalar(m, schema.TensorType.BOOL)
    before = m.conv(m.input((1, 9, 7, 12), 0.02, 3), SPARSE.weights(m.rng, (12, 1, 1, 12)))
    for kernel in (1, 3):
        branch = m.subgraph()
        x = branch.input(before.shape, before.scale, before.zero_point)
        y = branch.conv(x, SPARSE.weights(m.rng, (16, kernel, kernel, 12)))
        branch.graph.outputs = [branch.conv(y, SPARSE.weights(m.rng, (8, 1, 1, 16))).index]
    options = schema.IfOptionsT(thenSubgraphIndex=1, elseSubgraphIndex=2)
    inputs = [condition, before.index]
    result = Result(activation="")
    return m.finish(m._operator("IF", 1, inputs, (1, 9, 7, 8), result, options))


def test_convolutions_in_branches():
    plain, ours = both(with_branches())
    for interpreter in (plain, ours):
        interpreter.allocate_tensors()
    answers = []
    for taken in (True, False, True):
        a, b = (answer(i, np.array(taken), values_of((1, 9, 7, 12))) for i in (plain, ours))
        np.testing.assert_array_equal(a, b)
        answers.append(a)
    assert (answers[0] == answers[2]).all()
    assert (answers[0] != answers[1]).any()
    assert delegated(ours)[0] == {"CONV_2D": 1}  # Only the first subgraph is listed.


def with_a_loop():
    """WHILE: three times the same convolution."""
    m = Int8Model(np.random.default_rng(0))
    int32, result = schema.TensorType.INT32, Result(activation="")
    count, x = scalar(m, int32), m.input((1, 9, 7, 12), 0.02, 3)

    def compared(graph, name, options, other, kind):
        """An operator on a counter and a number; its output's type is changed from int8."""
        inputs = [graph.graph.inputs[0], graph._constant(np.array(other, np.int32), int32)]
        index = graph._operator(name, 1, inputs, (), result, options).index
        graph.graph.tensors[index].type, graph.graph.tensors[index].quantization = kind, None
        return index

    condition, body = m.subgraph(), m.subgraph()
    for graph in (condition, body):
        scalar(graph, int32)
        graph.input(x.shape, x.scale, x.zero_point)
    less = compared(condition, "LESS", schema.LessOptionsT(), 3, schema.TensorType.BOOL)
    condition.graph.outputs = [less]
    more = compared(body, "ADD", schema.AddOptionsT(), 1, int32)
    inner = type(x)(1, x.shape, x.scale, x.zero_point)
    y = body.conv(
        inner, SPARSE.weights(m.rng, (12, 3, 3, 12)), result=Result(x.scale, x.zero_point, "NONE")
    )
    body.graph.outputs = [more, y.index]
    options = schema.WhileOptionsT(condSubgraphIndex=1, bodySubgraphIndex=2)
    counted = m._tensor((), int32, None, 0, 0, 0)
    output = m._operator(
        "WHILE", 1, [count, x.index], x.shape, Result(x.scale, x.zero_point, ""), options
    )
    m.graph.operators[-1].outputs = [counted, output.index]
    return m.finish(output)


def test_convolutions_in_a_loop():
    content = with_a_loop()
    plain, ours = both(content)
    for interpreter in (plain, ours):
        interpreter.allocate_tensors()
    once = None
    for start in (0, 2, 0):
        a, b = (
            answer(i, np.array(start, np.int32), values_of((1, 9, 7, 12))) for i in (plain, ours)
        )
        np.testing.assert_array_equal(a, b)
        assert once is None or start == 0 or (once != a).any()
        once = a


@pytest.mark.parametrize(
    ("content", "convolutions_there"),
    [(with_branches(), 1), (with_a_loop(), 0)],
    ids=["if", "while"],
)
def test_the_prediction_counts_the_first_subgraph(content, convolutions_there):
    nodes = claim(read_network(content), CPUS["avx512vnni"], min_zeros=0).nodes
    assert sum(node.op == "CONV_2D" for node in nodes) == convolutions_there


def resized(shape, network=convolutions):
    m = Int8Model(np.random.default_rng(0))
    ours = both(m.finish(network(m, m.input(SHAPES[0], 0.02, 3))))[1]
    ours.resize_tensor_input(ours.get_input_details()[0]["index"], shape)
    return ours


def distant_rows(m, x):
    """A convolution of rows that are far apart, so that padding is most of what is read."""
    return m.conv(x, SPARSE.weights(m.rng, (4, 2, 1, 12)), Window(dilation=(64, 1)))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (convolutions, (1, 2400, 2400, 12)),  # 2^26 elements and more.
        (distant_rows, (1, 1, 400_000, 12)),  # 2^30 bytes and more with its padding.
    ],
)
def test_resized_beyond_the_limit_it_is_an_error(network, shape):
    ours = resized(shape, network)
    with pytest.raises(RuntimeError, match="edgesparse: an input is too large"):
        ours.allocate_tensors()
    ours.resize_tensor_input(ours.get_input_details()[0]["index"], SHAPES[0])
    ours.allocate_tensors()
    answer(ours, values_of(SHAPES[0]))
