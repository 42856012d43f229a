"""Runs the released model on one sample: python predict.py INPUT.npy

Or a raw file, which becomes an input as in training, where the data says how; of a text also the
sentence itself. A model with several inputs takes one file for each, in their order or as NAME=FILE.
"""

import importlib
import json
import os
import sys

import numpy
import raw

# A terminal that cannot show a label's letters shows their numbers.
sys.stdout.reconfigure(errors="backslashreplace")
HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "manifest.json"), encoding="utf-8") as file:
    manifest = json.load(file)
module = importlib.import_module(manifest["runtime"]["module"])
options = {"model_path": os.path.join(HERE, "model.tflite"), "num_threads": manifest["threads"]}
if isinstance(manifest["delegate"], dict):
    loaded = module.load_delegate(manifest["delegate"]["library"], manifest["delegate"]["options"])
    options["experimental_delegates"] = [loaded]
elif manifest["delegate"] == "none":
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options["experimental_op_resolver_type"] = resolver
interpreter = module.Interpreter(**options)
interpreter.allocate_tensors()
sources = {end["index"]: end for end in interpreter.get_input_details()}
targets = {end["index"]: end for end in interpreter.get_output_details()}
inputs = manifest.get("inputs") or [["input", index] for index in sources]
outputs = manifest.get("outputs") or [["output", index] for index in targets]
transforms = raw.read_transforms(os.path.join(HERE, "transform.json"))


def about(name):
    """An input, and what its file may be."""
    suffix = transforms.get(name, {}).get("file", "npy")
    return "%s (%s)" % (name, "npy" if suffix == "npy" else "npy or " + suffix)


def files(given):
    """The file of each input, by its name; what texts are made into comes from one text."""
    names = [name for name, _ in inputs]
    if len(given) == 1 and all(transforms.get(n, {}).get("kind") == "text" for n in names):
        return dict.fromkeys(names, given[0])
    named = dict(text.split("=", 1) for text in given if text.split("=", 1)[0] in names)
    return named if len(named) == len(given) else dict(zip(names, given))


chosen = files(sys.argv[1:])
if len(sys.argv) == 1 or len(chosen) != len(inputs):
    sys.exit(__doc__ + "\nIts inputs: " + ", ".join(about(name) for name, _ in inputs))
given = {}
for name, index in inputs:
    shape = [int(size) for size in sources[index]["shape"]]
    signature = [int(size) for size in sources[index].get("shape_signature", shape)]
    try:
        # A size that the file leaves open is that of the sample.
        values = raw.read(chosen[name], transforms.get(name), None if -1 in signature else shape)
    except (OSError, ValueError, ImportError) as error:
        sys.exit("error: %s" % error)
    given[index] = values.reshape([1] + list(values.shape[-(len(shape) - 1) :]))
    if -1 in signature:
        interpreter.resize_tensor_input(index, list(given[index].shape))
interpreter.allocate_tensors()
for index, values in given.items():
    scale, zero = sources[index]["quantization"]
    dtype = sources[index]["dtype"]
    if scale and numpy.issubdtype(dtype, numpy.integer):
        limits = numpy.iinfo(dtype)
        values = numpy.clip(numpy.round(values / scale) + zero, limits.min, limits.max)
    interpreter.set_tensor(index, values.astype(dtype))
interpreter.invoke()
with open(os.path.join(HERE, "labels.json"), encoding="utf-8") as file:
    labels = json.load(file)
for name, index in outputs:
    output = interpreter.get_tensor(index)[0].astype(numpy.float64)
    scale, zero = targets[index]["quantization"]
    output = (output - zero) * scale if scale else output
    if len(outputs) > 1:
        print("# " + name)
    values = output.reshape(-1)
    if labels and len(values) == len(labels):
        for place in numpy.argsort(-values)[:5]:
            print("%s\t%.4f" % (labels[place], values[place]))
    else:
        print("shape %s" % (list(output.shape),))
        print(
            " ".join("%.6g" % value for value in values[:20]) + (" ..." if values.size > 20 else "")
        )
