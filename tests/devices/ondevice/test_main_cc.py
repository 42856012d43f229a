"""The C++ example: compiled for both architectures, and run on a runtime.

TensorFlow Lite's C library is in no package of pip. Its stand-in here has its functions and calls
LiteRT's interpreter for each, so that the example's work is done by a runtime.
"""

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgesparse import delegate
from edgesparse.devices.ondevice import edgesparse_model
from edgesparse.spec.safe.files import user_cache
from tests.tools.delegate_answers import delegated
from tests.tools.int8_model import Int8Model, Zeros

pytestmark = pytest.mark.slow
SOURCE = Path(edgesparse_model.__file__).with_name("main.cc")
ZIG = [sys.executable, "-m", "ziglang", "c++"]
TYPES = {"float32": 1, "uint8": 3, "int16": 7, "int8": 9}
POINTER, INT, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
FUNCTIONS = {
    "ModelCreateFromFile": (POINTER, ctypes.c_char_p),
    "InterpreterOptionsCreate": (POINTER,),
    "InterpreterOptionsSetNumThreads": (None, POINTER, INT),
    "InterpreterOptionsAddDelegate": (None, POINTER, POINTER),
    "InterpreterCreate": (POINTER, POINTER, POINTER),
    "InterpreterAllocateTensors": (INT, POINTER),
    "InterpreterGetInputTensor": (POINTER, POINTER, INT),
    "InterpreterInvoke": (INT, POINTER),
    "InterpreterGetOutputTensor": (POINTER, POINTER, INT),
    "TensorType": (INT, POINTER),
    "TensorByteSize": (SIZE, POINTER),
    "TensorCopyFromBuffer": (INT, POINTER, POINTER, SIZE),
    "TensorCopyToBuffer": (INT, POINTER, POINTER, SIZE),
    "Scale": (ctypes.c_float, POINTER),
    "ZeroPoint": (INT, POINTER),
}
"""TensorFlow Lite's, without the prefix; the last two make up TensorQuantizationParams."""
C_NAMES = {POINTER: "void*", INT: "int", SIZE: "size_t", ctypes.c_float: "float", None: "void",
           ctypes.c_char_p: "const char*"}  # fmt: skip
STRUCT = """
struct Params { float scale; int zero_point; };
extern "C" Params TfLiteTensorQuantizationParams(void* tensor) {
  return {TfLiteScale(tensor), TfLiteZeroPoint(tensor)};
}
"""


def stand_in_source():
    """C++ of a library whose functions call pointers that Python sets."""
    lines = ["#include <stddef.h>"]
    for name, (result, *kinds) in FUNCTIONS.items():
        types = ", ".join(C_NAMES[kind] for kind in kinds)
        parameters = ", ".join(f"{C_NAMES[kind]} a{i}" for i, kind in enumerate(kinds))
        values = ", ".join(f"a{i}" for i in range(len(kinds)))
        lines.append(f'extern "C" {{ {C_NAMES[result]} (*slot_{name})({types});')
        call = f"{{ return slot_{name}({values}); }} }}"
        lines.append(f"{C_NAMES[result]} TfLite{name}({parameters}) {call}")
    return "\n".join(lines) + STRUCT


def compile_library(source, target, *flags):
    compiler = [shutil.which("c++")] if shutil.which("c++") else ZIG
    command = [*compiler, "-std=c++17", "-shared", "-fPIC", *flags, str(source), "-o", str(target)]
    subprocess.run([*command, "-ldl"], check=True)


def functions(added, interpreters):
    """What the stand-in calls, by name; tensors are their index plus one.

    Args:
        added: to which delegates are appended that the program adds to its options.
        interpreters: to which those are appended that it creates, with these delegates.
    """
    interpreter, details = None, {}

    def create(model, options):
        nonlocal interpreter
        delegates = [SimpleNamespace(_get_native_delegate_pointer=lambda p=p: p) for p in added]
        interpreter = Interpreter("model.tflite", experimental_delegates=delegates or None)
        interpreters.append(interpreter)
        ends = interpreter.get_input_details() + interpreter.get_output_details()
        details.update((end["index"] + 1, end) for end in ends)
        return 1

    def set_tensor(tensor, source, size):
        end = details[tensor]
        values = np.frombuffer(ctypes.string_at(source, size), end["dtype"])
        interpreter.set_tensor(tensor - 1, values.reshape(end["shape"]))
        return 0

    def get_tensor(tensor, target, size):
        content = interpreter.get_tensor(tensor - 1).tobytes()
        ctypes.memmove(target, content, size)
        return int(size != len(content))

    return {
        "ModelCreateFromFile": lambda path: int(path == b"model.tflite"),
        "InterpreterOptionsCreate": lambda: 1,
        "InterpreterOptionsSetNumThreads": lambda options, count: None,
        "InterpreterOptionsAddDelegate": lambda options, pointer: added.append(pointer),
        "InterpreterCreate": create,
        "InterpreterAllocateTensors": lambda _: interpreter.allocate_tensors() or 0,
        "InterpreterGetInputTensor": lambda _, i: interpreter.get_input_details()[i]["index"] + 1,
        "InterpreterInvoke": lambda _: interpreter.invoke() or 0,
        "InterpreterGetOutputTensor": lambda _, i: interpreter.get_output_details()[i]["index"] + 1,
        "TensorType": lambda tensor: TYPES[np.dtype(details[tensor]["dtype"]).name],
        "TensorByteSize": lambda tensor: interpreter.get_tensor(tensor - 1).nbytes,
        "TensorCopyFromBuffer": set_tensor,
        "TensorCopyToBuffer": get_tensor,
        "Scale": lambda tensor: details[tensor]["quantization"][0],
        "ZeroPoint": lambda tensor: details[tensor]["quantization"][1],
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_it_compiles_for(machine, tmp_path, monkeypatch):
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        monkeypatch.setenv(name, str(user_cache("zig")))
    command = [*ZIG, "-target", f"{machine}-linux-gnu.2.28", "-std=c++17", "-Wall", "-Wextra"]
    command += ["-Werror", "-c", str(SOURCE), "-o", str(tmp_path / "main.o")]
    subprocess.run(command, check=True)
    assert (tmp_path / "main.o").read_bytes()[:4] == b"\x7fELF"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The example as a library, and the stand-in."""
    folder = tmp_path_factory.mktemp("cc")
    (folder / "stand_in.cc").write_text(stand_in_source())
    compile_library(folder / "stand_in.cc", folder / "stand_in.so")
    compile_library(SOURCE, folder / "main.so", "-Dmain=run_example")
    return folder / "main.so", folder / "stand_in.so"


@pytest.fixture
def example(libraries, tmp_path, monkeypatch, capfd):
    """Runs the example in a folder with words after its name: its status, output and errors, the
    delegates that it added and the interpreters that it created."""
    program, stand_in = (ctypes.CDLL(str(path)) for path in libraries)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        added, interpreters, kept = [], [], []
        for name, call in functions(added, interpreters).items():
            kept.append(ctypes.CFUNCTYPE(*FUNCTIONS[name])(call))
            slot = ctypes.c_void_p.in_dll(stand_in, f"slot_{name}")
            slot.value = ctypes.cast(kept[-1], ctypes.c_void_p).value
        encoded = [b"main", *(str(word).encode() for word in words)]
        status = program._Z11run_exampleiPPc(
            len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
        )
        ctypes.CDLL(None).fflush(None)
        printed = capfd.readouterr()
        return status, printed.out, printed.err, added, interpreters

    return run


@pytest.mark.parametrize("model", ["dense", "int8"])
def test_it_answers_as_keras_does(
    libraries, example, tflite_files, sparse_dense_layer, samples, tmp_path, model
):
    shutil.copy(tflite_files[model], tmp_path / "model.tflite")
    samples[0].tofile(tmp_path / "input.f32")
    status, out, _, added, _ = example("input.f32", libraries[1])
    assert (status, added) == (0, [])
    numbers = [float(line) for line in out.split()]
    np.testing.assert_allclose(numbers, sparse_dense_layer(samples[:1])[0], atol=0.02)
    status, _, err, _, _ = example("input.f32", "./absent.so")
    assert status == 1
    assert "absent.so" in err


def test_it_uses_the_delegate(libraries, example, tmp_path):
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, 9, 7, 24), 0.02, 3)
    (tmp_path / "model.tflite").write_bytes(
        m.finish(m.conv(x, Zeros(0.8).weights(m.rng, (32, 1, 1, 24))))
    )
    m.rng.normal(0, 1, x.shape).astype(np.float32).tofile(tmp_path / "input.f32")
    library = delegate.library(platform.machine())
    _, plain, _, _, _ = example("input.f32", libraries[1])
    assert len(plain.split()) == 9 * 7 * 32

    status, out, err, added, (interpreter,) = example("input.f32", libraries[1], library)
    assert (status, err, len(added)) == (0, "", 1)
    assert added[0]
    assert delegated(interpreter)[0] == {"CONV_2D": 1}
    assert out == plain

    status, out, err, added, _ = example("input.f32", libraries[1], "./absent.so")
    assert (status, out, added) == (0, plain, [])
    assert err == "warning: ./absent.so cannot be used\n"
