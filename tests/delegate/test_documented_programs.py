"""The programs of the delegate's page: those in Python run, the one in C++ is compiled and run.

TFLite's C++ library is in no package of pip: a header stands in for its external delegate, and
loads the real library as that does.
"""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgesparse import delegate
from edgesparse.delegate.build import ARCHITECTURES
from edgesparse.docs import PAGES
from edgesparse.spec.safe.files import user_cache
from tests.conftest import ROOT
from tests.tools.documents import blocks
from tests.tools.int8_model import Int8Model, Zeros

pytestmark = pytest.mark.slow
HERE = platform.machine()
PAGE = PAGES / "explanation" / "delegate.md"
NAMED = "libedgesparse-aarch64.so"
"""The library as the programs name it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the programs expect it: a model, and the library of this machine."""
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, 9, 7, 24), 0.02, 3)
    x = m.conv(x, Zeros(0.8).weights(m.rng, (32, 1, 1, 24)))
    content = m.finish(m.conv(x, Zeros(0.8).weights(m.rng, (20, 3, 3, 32))))
    path = tmp_path_factory.mktemp("programs")
    (path / "model.tflite").write_bytes(content)
    (path / NAMED).write_bytes(delegate.library(HERE).read_bytes())
    return path


_REST = """
import sys
import numpy as np
from tests.tools.delegate_answers import delegated
assert delegated(interpreter)[0] == {"CONV_2D": 2}, delegated(interpreter)
(source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.set_tensor(source["index"], np.load("input.npy"))
interpreter.invoke()
np.save("output.npy", interpreter.get_tensor(target["index"]))
"""


@pytest.mark.parametrize("number", [0, 1])
def test_the_documented_programs_run(folder, number):
    programs = blocks(PAGE, "python")
    assert len(programs) == 2
    plain = Interpreter(str(folder / "model.tflite"))
    plain.allocate_tensors()
    (source,), (target,) = plain.get_input_details(), plain.get_output_details()
    values = np.random.default_rng(0).integers(-128, 128, source["shape"]).astype(np.int8)
    plain.set_tensor(source["index"], values)
    plain.invoke()
    np.save(folder / "input.npy", values)
    done = subprocess.run(
        [sys.executable, "-c", programs[number] + _REST],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    answer = np.load(folder / "output.npy")
    assert np.ptp(answer.astype(int)) > 50
    np.testing.assert_array_equal(answer, plain.get_tensor(target["index"]))


HEADER = """
#include <dlfcn.h>
#include <stddef.h>
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
struct TfLiteDelegate;
struct TfLiteExternalDelegateOptions {
  const char* lib_path;
  int count;
  const char *keys[256], *values[256];
  TfLiteStatus (*insert)(TfLiteExternalDelegateOptions*, const char* key, const char* value);
};
inline TfLiteExternalDelegateOptions TfLiteExternalDelegateOptionsDefault(const char* lib_path) {
  TfLiteExternalDelegateOptions options = {lib_path, 0, {}, {}, nullptr};
  options.insert = [](TfLiteExternalDelegateOptions* o, const char* key, const char* value) {
    o->keys[o->count] = key, o->values[o->count++] = value;
    return kTfLiteOk;
  };
  return options;
}
typedef TfLiteDelegate* (*Create)(const char**, const char**, size_t, void (*)(const char*));
static void* library;
inline TfLiteDelegate* TfLiteExternalDelegateCreate(TfLiteExternalDelegateOptions* o) {
  library = dlopen(o->lib_path, RTLD_NOW | RTLD_LOCAL);
  auto create = library ? (Create)dlsym(library, "tflite_plugin_create_delegate") : nullptr;
  return create ? create(o->keys, o->values, o->count, nullptr) : nullptr;
}
inline void TfLiteExternalDelegateDelete(TfLiteDelegate* delegate) {
  auto destroy = library ? dlsym(library, "tflite_plugin_destroy_delegate") : nullptr;
  if (destroy) ((void (*)(TfLiteDelegate*))destroy)(delegate);
}
"""
"""What the page's program uses of the external delegate, by TFLite's names."""

PROGRAM = """
#include <cstdio>
#include <cstdlib>
{includes}
struct Interpreter {{
  TfLiteStatus ModifyGraphWithDelegate(TfLiteDelegate* delegate) {{
    std::puts(delegate ? "modified" : "modified without a delegate");
    return getenv("REFUSE") ? kTfLiteError : kTfLiteOk;
  }}
}};
int main() {{
  Interpreter one, *interpreter = &one;
  {statements}
  std::puts("end");
}}
"""


@pytest.fixture(scope="module")
def programs(folder):
    """The page's program in C++, compiled for each architecture."""
    (text,) = blocks(PAGE, "cpp")
    lines = text.splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    (name,) = (line.split('"')[1] for line in includes if '"' in line)
    header = folder / "include" / name
    header.parent.mkdir(parents=True)
    header.write_text(HEADER)
    rest = "\n".join(line for line in lines if line not in includes)
    source = folder / "program.cc"
    source.write_text(PROGRAM.format(includes="\n".join(includes), statements=rest))
    cache = {
        name: str(user_cache("zig")) for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    }
    for machine in ARCHITECTURES:
        zig = [sys.executable, "-m", "ziglang", "c++", "-target", f"{machine}-linux-gnu.2.17"]
        zig += ["-O1", "-fno-sanitize=all"]
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Iinclude", "-c", source.name]
        # Without the C++ library and sanitizers, which are long in compiling where not cached.
        link = ["-nostdlib++", "program.o", "-ldl", "-o", f"program-{machine}"]
        for command in ([*zig, *flags, "-o", "program.o"], [*zig, *link]):
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, env={**os.environ, **cache}
            )
            assert done.returncode == 0, done.stderr
    return {machine: folder / f"program-{machine}" for machine in ARCHITECTURES}


def run(program, folder, **environment):
    done = subprocess.run(
        [program], capture_output=True, text=True, cwd=folder, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1], done.stderr


def test_the_program_in_cplusplus_runs(programs, folder, tmp_path):
    assert all(path.read_bytes()[:4] == b"\x7fELF" for path in programs.values())
    assert run(programs[HERE], folder) == (["modified", "end"], "")
    # Without the library, or where the runtime refuses it, the program says so and goes on.
    out, err = run(programs[HERE], tmp_path)
    assert (out, err.count("\n")) == (["end"], 1)
    out, err = run(programs[HERE], folder, REFUSE="1")
    assert (out, err.count("\n")) == (["modified", "end"], 1)
