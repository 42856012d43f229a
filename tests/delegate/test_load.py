"""Loading the delegate: from Python, by any program, again and again, and what is refused."""

import ctypes
import platform
import re
import subprocess
import sys

import numpy as np
import pytest

from edgesparse import delegate
from edgesparse.delegate.load import MODULES, TESTED, refused
from edgesparse.spec.errors import UsageError
from tests.conftest import ROOT
from tests.tools.int8_model import Int8Model, Zeros

HERE = platform.machine()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, 9, 7, 24), 0.02, 3)
    x = m.conv(x, Zeros(0.8).weights(m.rng, (32, 1, 1, 24)))
    path = tmp_path_factory.mktemp("load") / "model.tflite"
    path.write_bytes(m.finish(m.conv(x, Zeros(0.8).weights(m.rng, (20, 3, 3, 32)))))
    return path


_BOTH = """
import sys
import numpy as np
from importlib import import_module
from edgesparse import delegate
from edgesparse.delegate.load import MODULES
runtime, path = sys.argv[1:]
module = import_module(MODULES[runtime])
answers = []
for delegates in (None, [delegate.load(runtime, report=1)]):
    interpreter = module.Interpreter(path, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    values = np.random.default_rng(0).integers(-128, 128, source["shape"]).astype(np.int8)
    interpreter.set_tensor(source["index"], values)
    interpreter.invoke()
    answers.append(interpreter.get_tensor(target["index"]).astype(int))
print(abs(answers[0] - answers[1]).max())
"""


# In a process of its own: TensorFlow, which other tests import, keeps tflite-runtime out.
@pytest.mark.parametrize(("runtime", "apart"), [("ai-edge-litert", 0), ("tflite-runtime", 2)])
def test_both_runtimes_load_it(model, runtime, apart):
    if HERE == "x86_64" and runtime == "tflite-runtime" and sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has no wheels for this Python")
    command = [sys.executable, "-c", _BOTH, runtime, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\tCONV_2D\ttaken\t") == 2
    # The int8 kernels of 2.14 are not XNNPACK's.
    assert int(done.stdout) <= apart


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zeros": 1}, "unknown option zeros; known: isa, min_zeros"),
        ({"isa": "mmx"}, "unknown instruction set in the option isa"),
        ({"isa": "neon" if HERE == "x86_64" else "avx2"}, "unknown instruction set"),
        ({"min_zeros": 2}, "option min_zeros has the unexpected value 2"),
        ({"report": "yes"}, "option report has the unexpected value yes"),
        ({"dense": "perhaps"}, "option dense has the unexpected value perhaps"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        delegate.load("ai-edge-litert", **options)


def test_unknown_versions_machines_and_runtimes_are_refused(monkeypatch):
    assert refused("ai-edge-litert", TESTED["ai-edge-litert"][0], "aarch64") is None
    assert "lacks a library for riscv64; it runs on x86_64 and aarch64" in str(
        refused("ai-edge-litert", "2.1.6", "riscv64")
    )
    monkeypatch.setitem(TESTED, "ai-edge-litert", ("1.0", "1.1"))
    message = r"not tested with ai-edge-litert [0-9.]+, only with 1.0, 1.1; install what it is"
    with pytest.raises(UsageError, match=message):
        delegate.load("ai-edge-litert")
    with pytest.raises(UsageError, match="unknown runtime 'onnx'"):
        delegate.load("onnx")
    assert set(TESTED) == set(MODULES)


def test_big_endian_and_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(UsageError, match="little-endian Linux only, not on big-endian linux;"):
        delegate.load("ai-edge-litert")


def resident_bytes():
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
def test_ten_thousand_delegates_leave_nothing():
    library = ctypes.CDLL(str(delegate.library(HERE)))
    create, destroy = (
        library.tflite_plugin_create_delegate,
        library.tflite_plugin_destroy_delegate,
    )
    create.restype = destroy.argtypes = None
    create.restype, destroy.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    keys, values = (ctypes.c_char_p * 1)(b"report"), (ctypes.c_char_p * 1)(b"0")

    def rounds(count):
        for _ in range(count):
            destroy(create(keys, values, ctypes.c_size_t(1), None))

    rounds(100)
    before = resident_bytes()
    rounds(10_000)
    assert resident_bytes() - before < 1_000_000


@pytest.mark.slow
def test_repeated_interpreters_leave_nothing(model):
    from ai_edge_litert.interpreter import Interpreter

    def rounds(count, delegates):
        for _ in range(count):
            interpreter = Interpreter(str(model), experimental_delegates=delegates())
            interpreter.allocate_tensors()
            interpreter.invoke()

    def growth(delegates):
        rounds(50, delegates)
        before = resident_bytes()
        rounds(300, delegates)
        return resident_bytes() - before

    # What the runtime itself loses is not ours: 300 leaks of the model's weights would be 2 MB each
    # time; other threads of this process grow at times.
    assert any(
        growth(lambda: [delegate.load()]) < growth(lambda: None) + 1_000_000 for _ in range(3)
    )
