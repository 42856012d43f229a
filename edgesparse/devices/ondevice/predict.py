"""Runs the released model on a sample: python predict.py INPUT.npy

Where the data defines a transform, INPUT can be a raw file, which is transformed as in training, or
a text. A model with several inputs takes a file for each, in their order or as NAME=FILE.
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


def describe_input(name):
    """Describe an input and the types of its file."""
    suffix = transforms.get(name, {}).get("file", "npy")
    return "%s (%s)" % (name, "npy" if suffix == "npy" else "npy or " + suffix)


def match_files(arguments):
    """Return the file of each input, by name; a text serves all inputs that are made of texts."""
    names = [name for name, _ in inputs]
    if len(arguments) == 1 and all(transforms.get(n, {}).get("kind") == "text" for n in names):
        return dict.fromkeys(names, arguments[0])
    named = dict(text.split("=", 1) for text in arguments if text.split("=", 1)[0] in names)
    return named if len(named) == len(arguments) else dict(zip(names, arguments))


input_files = match_files(sys.argv[1:])
if len(sys.argv) == 1 or len(input_files) != len(inputs):
    sys.exit(__doc__ + "\nIts inputs: " + ", ".join(describe_input(name) for name, _ in inputs))
values_by_tensor = {}
for name, index in inputs:
    shape = [int(size) for size in sources[index]["shape"]]
    signature = [int(size) for size in sources[index].get("shape_signature", shape)]
    try:
        # A dynamic size is that of the sample.
        values = raw.read(
            input_files[name], transforms.get(name), None if -1 in signature else shape
        )
    except (OSError, ValueError, ImportError) as error:
        sys.exit("error: %s" % error)
    values_by_tensor[index] = values.reshape([1] + list(values.shape[-(len(shape) - 1) :]))
    if -1 in signature:
        interpreter.resize_tensor_input(index, list(values_by_tensor[index].shape))
interpreter.allocate_tensors()
for index, values in values_by_tensor.items():
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
        for index in numpy.argsort(-values)[:5]:
            print("%s\t%.4f" % (labels[index], values[index]))
    else:
        print("shape %s" % (list(output.shape),))
        print(
            " ".join("%.6g" % value for value in values[:20]) + (" ..." if values.size > 20 else "")
        )
