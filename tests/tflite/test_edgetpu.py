"""The compiler's command line and log, and the files it makes."""

import subprocess

import pytest

from edgesparse.spec.device import EdgeTpu
from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite import edgetpu
from tests.tools.edgetpu import VERSION, make_compiler

LOG = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 3133 ms.

Input model: a b.tflite
Input size: 6.00MiB
Output model: a b_edgetpu.tflite
Output size: 6.47MiB
On-chip memory used for caching model parameters: 5.90MiB
On-chip memory remaining for caching model parameters: 1.16MiB
Off-chip memory used for streaming uncached model parameters: 41.75KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 31
Operation log: a b_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage ...
Number of operations that will run on Edge TPU: 26
Number of operations that will run on CPU: 5

Operator                       Count      Status

CONV_2D                        26         Mapped to Edge TPU
LOGISTIC                       1          More than one subgraph is not supported
CUSTOM                         4          Operation is working on an unsupported data type
Compilation child process completed within timeout period.
Compilation succeeded!
"""


@pytest.fixture
def compiler(tmp_path):
    return make_compiler(tmp_path / "bin")


def run(compiler, *arguments, **environment):
    return subprocess.run(
        [str(compiler), *map(str, arguments)], capture_output=True, text=True, env=environment
    )


def test_a_log_is_read():
    log = edgetpu.parse_log(LOG)
    assert log.version == VERSION
    assert (log.mapped, log.total, log.subgraphs) == (26, 31, 1)
    assert log.on_chip_bytes == round(5.9 * 1024 * 1024)
    assert log.off_chip_bytes == round(41.75 * 1024)
    assert [op.name for op in log.unmapped] == ["LOGISTIC", "CUSTOM"]
    assert edgetpu.notes(log) == [
        "Edge TPU: 26 of 31 operators mapped, 5.90 MiB of parameters on chip, 41.8 KiB streamed "
        "to it on every inference",
        "on the CPU instead of the Edge TPU: 1 LOGISTIC: More than one subgraph is not supported; "
        "4 CUSTOM: Operation is working on an unsupported data type",
    ]


@pytest.mark.parametrize("text", ["", "Operator Count Status", "x" * 100_000, LOG[:300]])
def test_any_other_text_is_no_log(text):
    log = edgetpu.parse_log(text)
    assert log.mapped == log.total == 0


def test_the_command_line_says_what_the_device_file_says():
    tpu = EdgeTpu(
        min_runtime_version=13, multiple_subgraphs=True, search_delegate=True, timeout_seconds=9
    )
    assert edgetpu.arguments(tpu, "m.tflite", "out") == [
        "-s", "-o", "out", "-t", "9", "-m", "13", "-a", "-d", "m.tflite"
    ]  # fmt: skip
    assert edgetpu.arguments(EdgeTpu(), "m.tflite", "out")[-1] == "m.tflite"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Invalid model: m.tflite\nModel not quantized\n", "the model is not fully quantized"),
        (
            "ERROR: Didn't find op for builtin opcode 'TRANSPOSE_CONV' version '3'\n",
            "this compiler does not support TRANSPOSE_CONV version 3: its TFLite is older than the "
            "file",
        ),
        (
            "ERROR: Attempting to use a delegate that only supports static-sized tensors with a "
            "graph that has dynamic-sized tensors.",
            "the model has tensors of dynamic size; give its input a fixed shape",
        ),
        (
            "\nInternal compiler error. Aborting! \n",
            "the compiler failed (internal compiler error); 'search_delegate: true' in the "
            "device file looks for a part that compiles",
        ),
        ("ERROR: something new\nCompilation failed!\n", "ERROR: something new"),
        ("Compilation failed!\n", "it printed no reason"),
    ],
)
def test_every_known_failure_has_its_own_words(said, reason):
    assert edgetpu.failure(said) == reason


def test_a_compiled_file_must_be_of_its_source(compiler, tflite_files, tmp_path):
    source = tflite_files["int8"]
    done = run(compiler, *edgetpu.arguments(EdgeTpu(), source, tmp_path))
    assert done.returncode == 0, done.stderr
    log = edgetpu.parse_log(done.stdout)
    assert 0 < log.mapped < log.total
    content = (tmp_path / "int8_edgetpu.tflite").read_bytes()
    edgetpu.require_compiled(content, source.read_bytes(), "int8")
    assert edgetpu.is_compiled(content)
    assert not edgetpu.is_compiled(source.read_bytes())
    with pytest.raises(EdgesparseError, match="none of its operators is mapped"):
        edgetpu.require_compiled(source.read_bytes(), source.read_bytes(), "int8")
    with pytest.raises(EdgesparseError, match="from another model"):
        edgetpu.require_compiled(content, tflite_files["dense"].read_bytes(), "int8")
    with pytest.raises(EdgesparseError, match="damaged"):
        edgetpu.require_compiled(content[:100], source.read_bytes(), "int8")


def test_a_float_model_is_refused(compiler, tflite_files, tmp_path):
    done = run(compiler, *edgetpu.arguments(EdgeTpu(), tflite_files["dense"], tmp_path))
    assert done.returncode == 1
    assert edgetpu.failure(done.stdout) == "the model is not fully quantized"
