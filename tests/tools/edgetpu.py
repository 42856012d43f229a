"""Stand-ins for what cannot be had here: Google's compiler, and the Edge TPU's library.

The compiler has edgetpu_compiler 16.0's command line, exit codes and log, as its public
documentation and logs in public issue threads show them. It leaves the model as it is, and adds an
operator edgetpu-custom-op that nothing uses; so the file still answers right. The library is a real
external delegate, compiled here, that takes no operator and writes down its options.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import require

VERSION = "16.0.384591198"
_COMPILER = r'''
import argparse, os, sys
import flatbuffers
from ai_edge_litert import schema_py_generated as schema

if "--version" in sys.argv:
    print("Edge TPU Compiler version VERSION")
    sys.exit(0)
parser = argparse.ArgumentParser(prog="edgetpu_compiler")
parser.add_argument("-s", "--show_operations", action="store_true")
parser.add_argument("-o", "--out_dir", default=".")
parser.add_argument("-m", "--min_runtime_version", type=int, default=14)
parser.add_argument("-d", "--search_delegate", action="store_true")
parser.add_argument("-a", "--enable_multiple_subgraphs", action="store_true")
parser.add_argument("-t", "--timeout_sec", type=int, default=180)
parser.add_argument("model")
given = parser.parse_args()
with open(given.model, "rb") as file:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
print("Edge TPU Compiler version VERSION")
print("Started a compilation timeout timer of %d seconds." % given.timeout_sec)
graph = model.subgraphs[0]
if any(tensor.type == schema.TensorType.FLOAT32 for tensor in graph.tensors):
    print("ERROR: Invalid model: %s\nModel not quantized" % given.model)
    print("Compilation child process completed within timeout period.\nCompilation failed!")
    sys.exit(1)
if any(tensor.sparsity for tensor in graph.tensors):
    print("ERROR: Didn't find op for builtin opcode 'DENSIFY' version '1'")
    print("Compilation failed!")
    sys.exit(1)
names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
codes = [code.builtinCode for code in model.operatorCodes]
counts = {}
for operator in graph.operators:
    name = names[codes[operator.opcodeIndex]]
    counts[name] = counts.get(name, 0) + 1
on_chip = os.environ.get("FAKE_EDGETPU_MAPS", "all") != "none"
cpu = () if on_chip else tuple(counts)
cpu = cpu or tuple(name for name in counts if name == "SOFTMAX")
custom = schema.OperatorCodeT()
custom.builtinCode = custom.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
custom.customCode, custom.version = "edgetpu-custom-op", 1
if on_chip:
    model.operatorCodes.append(custom)
builder = flatbuffers.Builder(1 << 16)
builder.Finish(model.Pack(builder), b"TFL3")
stem = os.path.splitext(os.path.basename(given.model))[0]
target = os.path.join(given.out_dir, stem + "_edgetpu")
with open(target + ".tflite", "wb") as file:
    file.write(builder.Output())
inside = sum(count for name, count in counts.items() if name not in cpu)
table = "Operator                       Count      Status\n\n" + "".join(
    "%-30s %-10d %s\n" % (name, count, "Operation is otherwise supported, but not mapped due to "
        "some unspecified limitation" if name in cpu else "Mapped to Edge TPU")
    for name, count in counts.items())
log = """
Model compiled successfully in 91 ms.

Input model: %s
Input size: 4.08MiB
Output model: %s.tflite
Output size: 4.39MiB
On-chip memory used for caching model parameters: %s
On-chip memory remaining for caching model parameters: 3.37MiB
Off-chip memory used for streaming uncached model parameters: 41.75KiB
Number of Edge TPU subgraphs: %d
Total number of operations: %d
Operation log: %s.log
""" % (given.model, target, "4.31MiB" if inside else "0.00B", bool(inside), sum(counts.values()),
       target)
if cpu:
    log += """
Model successfully compiled but not all operations are supported by the Edge TPU. A percentage \
of the model will instead run on the CPU, which is slower. If possible, consider updating your \
model to use only operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: %d
Number of operations that will run on CPU: %d
""" % (inside, sum(counts.values()) - inside)
with open(target + ".log", "w") as file:
    file.write("Edge TPU Compiler version VERSION\n" + log + "\n" + table)
print(log + ("\n" + table if given.show_operations else
             "See the operation log file for individual operation details.\n"))
print("Compilation child process completed within timeout period.\nCompilation succeeded! ")
'''.replace("VERSION", VERSION)

# The part of TFLite's C interface that an external delegate needs.
_DELEGATE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Delegate {
  void* data;
  int (*prepare)(void* context, struct Delegate* delegate);
  void* copy_from; void* copy_to; void* free_handle;
  int64_t flags;
  void* opaque_builder;
} Delegate;

static int prepare(void* context, struct Delegate* delegate) { return 0; }

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                        void (*report)(const char*)) {
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "device") && !strcmp(values[i], "usb:9")) {
      if (report) report("no such device");
      return NULL;
    }
    if (!strcmp(keys[i], "trace")) {
      FILE* file = fopen(values[i], "a");
      if (!file) return NULL;
      for (size_t k = 0; k < count; k++) fprintf(file, "%s=%s\n", keys[k], values[k]);
      fclose(file);
    }
  }
  Delegate* made = calloc(1, sizeof(Delegate));
  made->prepare = prepare;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
"""


def make_compiler(folder: Path) -> Path:
    """A program `edgetpu_compiler` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "edgetpu_compiler"
    program.write_text(f"#!{sys.executable}\n{_COMPILER}")
    program.chmod(0o755)
    return program


def make_library(folder: Path) -> Path:
    """A delegate's shared library in `folder`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    require(compiler is not None, "a C compiler (apt-get install gcc libc6-dev)")
    assert compiler is not None
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "delegate.c"
    source.write_text(_DELEGATE)
    library = folder / "libedgetpu-standin.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True
    )
    return library
