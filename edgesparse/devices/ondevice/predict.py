"""Runs the released model on one input: python predict.py INPUT.npy (or an image, with pillow)."""

import importlib
import json
import os
import sys

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "manifest.json")) as file:
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
source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def read(path, shape):
    """Values as in training: .npy as it is, an image scaled to 0..1."""
    if path.endswith(".npy"):
        return numpy.load(path, allow_pickle=False).reshape(shape)
    from PIL import Image

    picture = Image.open(path).convert("RGB" if shape[-1] == 3 else "L")
    return numpy.asarray(picture.resize((shape[2], shape[1]))).reshape(shape) / 255.0


if len(sys.argv) != 2:
    sys.exit(__doc__)
values = read(sys.argv[1], [int(size) for size in source["shape"]])
scale, zero = source["quantization"]
if scale and numpy.issubdtype(source["dtype"], numpy.integer):
    limits = numpy.iinfo(source["dtype"])
    values = numpy.clip(numpy.round(values / scale) + zero, limits.min, limits.max)
interpreter.set_tensor(source["index"], values.astype(source["dtype"]))
interpreter.invoke()
output = interpreter.get_tensor(target["index"])[0].astype(numpy.float64)
scale, zero = target["quantization"]
output = (output - zero) * scale if scale else output
with open(os.path.join(HERE, "labels.json")) as file:
    labels = json.load(file)
for index in numpy.argsort(-output.reshape(-1))[:5]:
    name = labels[index] if index < len(labels) else index
    print("%s\t%.4f" % (name, output.reshape(-1)[index]))
