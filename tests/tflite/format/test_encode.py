"""Files keep their answers and their bits, whatever is stored how."""

import random

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.encode import Encoding, decode, encode
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.sparse_layout import along, blocks
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.storage import is_candidate, store
from tests.conftest import converters_own
from tests.tflite.test_convert import answers

SHAPE = (16, 16, 3)
ANY = Profile(Machine("tflite-runtime", "2.14.0", "x86_64"))


@pytest.fixture(scope="module")
def network():
    """Every kind of layer with a kernel, 90 % zeros in each."""
    layers = tf.keras.layers
    x = inputs = tf.keras.Input(SHAPE)
    x = layers.Conv2D(32, 3, 2, use_bias=False, name="first")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    for i in range(3):
        x = layers.Conv2D(128, 1, activation="relu6", name=f"pointwise_{i}")(x)
    x = layers.Conv2D(64, 3, activation="relu", name="wide")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu", name="dense")(x)
    model = tf.keras.Model(inputs, layers.Dense(48, name="last")(x))
    chance = np.random.default_rng(3)
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if len(weight.shape) > 1:
                weight.assign(weight * (chance.random(weight.shape) < 0.1))
            else:
                weight.assign(chance.normal(size=weight.shape))  # A bias of zeros is left out.
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).random((8, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def files(network, images):
    schemes = ("f32", "f16", "int8")
    return {scheme: convert(network, scheme, images, one_scale=True) for scheme in schemes}


def rows(constant):
    return Encoding(along(constant.values.ndim, constant.values.ndim - 1), True)


def stored(content):
    return {c.name: c.values.tobytes() for c in constants(open_model(content, "m"))}


def by_row(content):
    return encode(content, lambda c: rows(c) if is_candidate(c) else None)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["f32", "f16", "int8"])
def test_nothing_is_lost(files, scheme):
    encoded = by_row(files[scheme])
    assert len(encoded) < len(files[scheme])
    assert stored(encoded) == stored(files[scheme])
    assert stored(decode(encoded)) == stored(files[scheme])
    assert len(decode(encoded)) <= len(files[scheme])
    assert by_row(encoded) == encoded
    before, after = inspect(files[scheme]), inspect(encoded)
    assert (before.zeros, before.parameters) == (after.zeros, after.parameters)


@pytest.mark.parametrize("scheme", ["f32", "f16"])
def test_the_same_kernel_gives_the_same_bits(files, images, scheme):
    assert np.array_equal(answers(by_row(files[scheme]), images), answers(files[scheme], images))


def test_int8_convolutions_too(files, images):
    def choose(constant):
        return rows(constant) if is_candidate(constant) and "CONV" in constant.op else None

    encoded = encode(files["int8"], choose)
    assert inspect(encoded).storage == "sparse"
    assert np.array_equal(answers(encoded, images), answers(files["int8"], images))


@pytest.mark.parametrize(("scheme", "width", "limit"), [("f32", 4, 1e-5), ("int8", 16, None)])
def test_a_sparse_kernel_answers_alike(sparse_dense_layer, samples, scheme, width, limit):
    dense = convert(sparse_dense_layer, scheme, samples, one_scale=True)
    encoding = Encoding(blocks(2, width), False)
    encoded = encode(dense, lambda c: encoding if is_candidate(c) else None)
    model = open_model(encoded, "m")
    assert {c.version for c in model.operatorCodes if c.builtinCode == 9} == {8}
    assert "DENSIFY" not in {d["op_name"] for d in opened(encoded)._get_ops_details()}
    limit = limit or opened(dense).get_output_details()[0]["quantization"][0] * 1.01
    assert np.abs(answers(encoded, samples) - answers(dense, samples)).max() <= limit


def opened(content):
    return Interpreter(model_content=content)


@pytest.mark.slow
@pytest.mark.full
def test_never_larger_than_the_converters_own(network, images, sparse_dense_layer, samples):
    for model, x in ((network, images), (sparse_dense_layer, samples)):
        local = converters_own(model)
        ours, _ = store(convert(model, "f32", x), ANY, "sparse")
        assert len(ours) <= len(local)
        # Its file is read and stored anew: the same weights, no larger, the same answers.
        again, _ = store(local, ANY, "sparse")
        assert len(again) <= len(local)
        assert {k: stored(local)[k] for k in stored(again)} == stored(again)
        batch = opened(again).get_input_details()[0]["shape_signature"][0]
        assert batch == opened(local).get_input_details()[0]["shape_signature"][0]


def test_tensors_that_share_a_buffer_go_on_sharing_one(files):
    model = open_model(files["f32"], "m")
    twins = [c for c in constants(model) if c.values.shape == (128, 1, 1, 128)]
    assert len(twins) == 2
    for twin in twins:
        model.subgraphs[0].tensors[twin.tensor].buffer = twins[0].buffer
    shared = pack(model)
    encoded = by_row(shared)
    buffers = {c.buffer for c in constants(open_model(encoded, "m")) if c.name in
               {t.name for t in twins}}  # fmt: skip
    assert len(buffers) == 1
    assert stored(encoded) == stored(shared)


def pack(model):
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_buffers_stay_where_kernels_read_them_fast(files):
    """Those of a file that is aligned stay so."""
    from edgesparse.tflite.format import encode as encode_module

    model = open_model(files["f32"], "m")
    aligned = encode_module.serialize(model, aligned=True)
    assert encode_module._is_aligned(open_model(aligned, "m"), aligned)
    encoded = by_row(aligned)
    assert encode_module._is_aligned(open_model(encoded, "m"), encoded)


def test_signatures_and_metadata_stay(files):
    before, after = (open_model(c, "m") for c in (files["f32"], by_row(files["f32"])))
    assert [s.signatureKey for s in after.signatureDefs] == [
        s.signatureKey for s in before.signatureDefs
    ]
    runner = opened(by_row(files["f32"])).get_signature_runner()
    assert next(iter(runner.get_input_details().values()))["shape"].tolist() == [1, *SHAPE]
    assert [m.name for m in after.metadata] == [m.name for m in before.metadata]


def test_weights_behind_the_flatbuffer_are_refused(files):
    model = open_model(files["f32"], "m")
    model.buffers[-1].offset, model.buffers[-1].size = 64, 64
    model.buffers[-1].data = None
    with pytest.raises(UsageError, match="after the flatbuffer"):
        decode(pack(model))


def test_damage_is_an_error_and_nothing_else(files):
    base = by_row(files["int8"])
    chance = random.Random(5)
    refused = 0
    for _ in range(60):
        content = bytearray(base)
        start = chance.choice([8, len(base) // 2, len(base) - 3000])
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(start, start + 300)] = chance.randrange(256)
        try:
            decode(bytes(content))
        except EdgesparseError:
            refused += 1
    assert refused
    with pytest.raises(UsageError, match="truncated or damaged"):
        decode(base[: len(base) // 2])


def test_the_densify_stands_right_before_its_reader(files):
    graph = open_model(by_row(files["f32"]), "m").subgraphs[0]
    model = open_model(by_row(files["f32"]), "m")
    code = schema.BuiltinOperator.DENSIFY
    for path, operator in enumerate(graph.operators):
        if model.operatorCodes[operator.opcodeIndex].builtinCode == code:
            assert operator.outputs[0] in graph.operators[path + 1].inputs


def test_float_weights_beside_int8_ones_answer_right():
    """The converter gives all fully connected layers the version of the newest; with that XNNPACK
    reads sparse floats as if they were dense."""
    tf.keras.utils.set_random_seed(2)
    layers = tf.keras.layers
    x = inputs = tf.keras.Input((256,))
    x = layers.Dense(64, "relu", name="large")(x)  # Small ones stay float.
    small = layers.Dense(4, name="small")
    model = tf.keras.Model(inputs, small(x))
    kernel = small.kernel.numpy()
    small.kernel.assign(kernel * (np.random.default_rng(0).random(kernel.shape) < 0.1))
    samples = np.random.default_rng(1).random((8, 256), np.float32)
    content = convert(model, "dynamic", samples, one_scale=True)
    stored, decisions = store(content, ANY, "auto")
    assert {d.form for d in decisions if d.exploited} == {"random"}
    np.testing.assert_allclose(answers(stored, samples), answers(content, samples), atol=1e-5)
