import os
import random
import resource
from pathlib import Path

import numpy as np
import pytest

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.tflite.format.flatbuffer import label
from edgesparse.tflite.format.inspect import inspect, read_model
from edgesparse.tflite.format.minimal_model import tiny_model


def test_zeros_are_counted_whatever_the_storage(tflite_files, sparse_dense_layer):
    zeros = int(np.sum(sparse_dense_layer.get_layer("wide").kernel.numpy() == 0))
    dense, sparse = (inspect(tflite_files[k].read_bytes()) for k in ("dense", "sparse"))
    assert dense.zeros == sparse.zeros == zeros
    assert dense.parameters == sparse.parameters == sparse_dense_layer.count_params()
    assert (dense.storage, sparse.storage) == ("dense", "sparse")
    assert sparse.sparsity == pytest.approx(zeros / (512 * 512 + 5120))
    wide = max(sparse.matrices, key=lambda w: w.size)
    assert wide.op == "FULLY_CONNECTED"
    assert wide.shape == (512, 512)
    assert wide.stored_bytes < len(tflite_files["sparse"].read_bytes())
    # 4 bytes a value, 2 bytes an index, and 513 row starts of 4 bytes.
    assert wide.stored_bytes == (512 * 512 - wide.zeros) * 6 + 513 * 4


def test_int8_counts_zeros_and_biases(tflite_files, sparse_dense_layer):
    info = inspect(tflite_files["int8"].read_bytes())
    assert info.parameters == sparse_dense_layer.count_params()
    assert info.sparsity > 0.49
    assert info.bytes_gzip < info.bytes


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(tflite_files, share):
    content = tflite_files["dense"].read_bytes()
    with pytest.raises(UsageError, match=r"m.tflite is (truncated|not a)"):
        inspect(content[: int(len(content) * share)], "m.tflite")


def test_damaged_files_never_raise_anything_else(tflite_files):
    base = tflite_files["sparse"].read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        content = bytearray(base)
        start = chance.choice([8, len(base) - 3000])
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(start, start + 300)] = chance.randrange(256)
        try:
            inspect(bytes(content))
        except EdgesparseError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model/resnet8/conv1/Conv2D", "conv1"),
        ("model_1/ds_cnn/dw_4_relu/Relu;model_1/ds_cnn/dw_4_bn/F;m/ds_cnn/conv_dw_4/depthwise",
         "conv_dw_4"),
        ("m/mlp/quant_dense_1/MatMul;m/mlp/quant_dense_1/LastValueQuant/FakeQuantWithMinMaxVars",
         "dense_1"),
        ("model/sep/separable_conv2d/depthwise", "sep"),
        ("model/tf.math.tanh/Tanh", "tf.math.tanh"),
        ("arith.constant1", "arith.constant1"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_weight_is_called_as_its_layer(name, layer):
    assert label(name) == layer


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "m.tflite"
    with pytest.raises(UsageError, match="no such file"):
        read_model(path)
    path.touch()
    with pytest.raises(UsageError, match="is empty"):
        read_model(path)
    path.write_text("name: a text file, not a model")
    with pytest.raises(UsageError, match=r"is not a .tflite model"):
        read_model(path)
    with pytest.raises(UsageError, match="not a regular file"):
        read_model(tmp_path)


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", "/dev/null", tmp_path / "pipe", "/proc/self/fd/0/x", "a\0b"):
        with pytest.raises(UsageError):
            read_model(Path(path))
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(UsageError, match="is larger than 2 GB"):
        read_model(tmp_path / "huge")


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ([2**31 - 1, 1], [("dense", 2**31 - 1), ("dense", 1)]),
        ([2**16, 2**15], [("dense", 2**16), ("dense", 2**15)]),
        ([2**13, 2**13], [("dense", 2**13), ("dense", 2**13)]),
        ([2**13, 2**13], [("dense", 2**13), ("csr", 0)]),
    ],
)
def test_a_small_file_cannot_claim_gigabytes(shape, levels):
    """447 KB said to be a tensor of 2^31 elements took 4.3 GB of memory."""
    content = claiming(shape, levels)
    assert len(content) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="is truncated or damaged"):
        inspect(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


def claiming(shape, levels):
    """A .tflite file with one sparse weight of that shape."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tiny_model(), 0))
    graph = model.subgraphs[0]
    weight = graph.tensors[0]
    weight.shape, weight.buffer = shape, len(model.buffers)
    weight.sparsity = schema.SparsityParametersT()
    weight.sparsity.traversalOrder = list(range(len(shape)))
    weight.sparsity.dimMetadata = []
    for form, size in levels:
        level = schema.DimensionMetadataT()
        level.denseSize = size
        if form == "csr":
            level.format = schema.DimensionType.SPARSE_CSR
            level.arraySegmentsType = level.arrayIndicesType = schema.SparseIndexVector.Int32Vector
            level.arraySegments, level.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
            level.arraySegments.values, level.arrayIndices.values = [0, 1], [0]
        weight.sparsity.dimMetadata.append(level)
    buffer = schema.BufferT()
    buffer.data = [0] * 4
    model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
