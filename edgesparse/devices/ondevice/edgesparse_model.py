"""The model in this folder, for programs on the device:

    from edgesparse_model import Model

    model = Model()
    scores = model(frame)
    print(model.labels[scores.argmax()])

A single file for Python 3.7 and later; it needs numpy and a TFLite runtime, and raw.py, model.tflite,
manifest.json, transform.json and labels.json beside it. Importing it does nothing.
"""

import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import sys
import threading
import warnings

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = (
    "ai_edge_litert.interpreter",
    "tflite_runtime.interpreter",
    "tensorflow.lite.python.interpreter",
)
SPARSE_LIBRARY = "libedgesparse"
"""Begins the file name of the delegate that speeds up zeros and that no model depends on."""


class ModelError(Exception):
    """The model cannot be loaded; the message names the cause."""


class Model:
    """A model that is loaded once and called for each sample. Calls from several threads take turns.

    Args:
        folder: of the model's files; default: this file's.
        threads: that an inference uses; default: as it was measured.
        delegate: "auto": as it was measured; "xnnpack" or "none".
        warm_up: infer once while loading, so that the first call is as fast as the others.

    Attributes:
        inputs, outputs: their names, in order.
        labels: of the classes; empty where the data has none.
        runtime, delegate: the module and the delegate that are used.

    Raises:
        ModelError: a file is missing or altered, or no runtime can be imported.
    """

    def __init__(self, folder=None, threads=None, delegate="auto", warm_up=True):
        self.folder = os.path.abspath(os.fsdecode(folder or HERE))
        if not _is_utf8(self.folder):
            raise ModelError("%a: runtimes read only paths in UTF-8; rename it" % self.folder)
        self.manifest = self._read_json("manifest.json")
        try:
            measured = self.manifest["runtime"]["module"]
        except (LookupError, TypeError):
            path = os.path.join(self.folder, "manifest.json")
            raise ModelError("%s: names no runtime; copy the model again" % path) from None
        for name in ("labels.json", "transform.json", "raw.py"):
            if name in self.manifest.get("files", {}):
                self._checked(name)
        self.labels = self._read_json("labels.json") or []
        self._raw = _load_raw(self.folder)
        try:
            self.transforms = self._raw.read_transforms(os.path.join(self.folder, "transform.json"))
        except ValueError as error:
            raise ModelError("transform.json: cannot be read: %s" % error) from None
        self._lock = threading.Lock()
        model = self._checked("model.tflite")
        module = _import_runtime(measured)
        self.runtime = module.__name__
        chosen = self.manifest.get("delegate", "xnnpack") if delegate == "auto" else delegate
        options = {"model_path": model, "num_threads": threads or self.manifest.get("threads", 1)}
        self._interpreter, self.delegate = self._open(module, options, chosen)
        sources = {end["index"]: end for end in self._interpreter.get_input_details()}
        targets = {end["index"]: end for end in self._interpreter.get_output_details()}
        inputs = self.manifest.get("inputs") or [["input", index] for index in sources]
        outputs = self.manifest.get("outputs") or [["output", index] for index in targets]
        self._sources = {name: sources[index] for name, index in inputs}
        self._targets = [(name, targets[index]) for name, index in outputs]
        self._shapes = {}
        self.inputs = [name for name, _ in inputs]
        self.outputs = [name for name, _ in outputs]
        self.transforms = by_input(self.inputs, self.transforms)
        if warm_up and not any(_is_dynamic(source) for source in self._sources.values()):
            # Zeros, since what is in memory can be an index beyond a table.
            for source in self._sources.values():
                zeros = numpy.zeros([int(size) for size in source["shape"]], source["dtype"])
                self._interpreter.set_tensor(source["index"], zeros)
            self._interpreter.invoke()

    def __call__(self, *values, **named):
        """Infer one sample.

        Args:
            values: of the inputs, in order, or a single dict by name; `named`: the same by name.
                A frame is an integer array [height, width, 3] in RGB, [height, width] in grey, or
                [height, width, 4], of any size: it is resized and scaled as in training. Likewise a
                row is a dict by column, sound an int16 array, a text a str, and a path any file
                that predict.py takes. An array of floats is the model's input itself.

        Returns:
            The output as float32, without the batch; several outputs as a dict by name.

        Raises:
            ValueError: a value does not fit its input.
        """
        by_name = self._by_name(values, named)
        inputs = {name: self._input(name, by_name[name]) for name in self.inputs}
        with self._lock:
            self._set_inputs(inputs)
            if self.manifest.get("stateful"):
                self._interpreter.reset_all_variables()  # Samples are independent.
            self._interpreter.invoke()
            results = {name: self._output(target) for name, target in self._targets}
        return results if len(results) > 1 else results[self.outputs[0]]

    def top(self, scores, count=5):
        """Return the highest scores as [(label, score)], highest first."""
        values = scores.reshape(-1)
        order = (-values).argsort(kind="stable")[:count]
        return [(self.labels[index], float(values[index])) for index in order]

    def describe(self, name):
        """Describe an input and the types of its file."""
        suffix = (self.transforms.get(name) or {}).get("file", "npy")
        return "%s (%s)" % (name, "npy" if suffix == "npy" else "npy or " + suffix)

    @property
    def takes_text(self):
        """True where a single text serves all inputs."""
        return all((self.transforms.get(n) or {}).get("kind") == "text" for n in self.inputs)

    def _by_name(self, values, named):
        if len(values) == 1 and not named:
            if isinstance(values[0], dict) and set(values[0]) == set(self.inputs):
                return values[0]
            if self.takes_text:
                return dict.fromkeys(self.inputs, values[0])
        by_name = dict(zip(self.inputs, values), **named)
        if len(values) + len(named) != len(self.inputs) or set(by_name) != set(self.inputs):
            raise ValueError("the model takes a value for each input: " + ", ".join(self.inputs))
        return by_name

    def _input(self, name, value):
        """Convert a value to an array of the input's shape, with the batch; still unquantized."""
        source = self._sources[name]
        shape = [int(size) for size in source["shape"]]
        dynamic = _is_dynamic(source)  # A dynamic size is that of the sample.
        try:
            values = self._raw.convert(value, self.transforms.get(name), None if dynamic else shape)
        except ValueError as error:
            raise ValueError("input %s: %s" % (name, error)) from None
        return values.reshape([1] + list(values.shape[-(len(shape) - 1) :])) if dynamic else values

    def _set_inputs(self, values):
        changed = False
        for name, array in values.items():
            source = self._sources[name]
            if _is_dynamic(source) and self._shapes.get(name) != array.shape:
                self._interpreter.resize_tensor_input(source["index"], list(array.shape))
                self._shapes[name], changed = array.shape, True
        if changed:
            self._interpreter.allocate_tensors()
        for name, array in values.items():
            source = self._sources[name]
            self._interpreter.set_tensor(source["index"], _quantized(array, source))

    def _output(self, target):
        values = self._interpreter.get_tensor(target["index"])[0]
        scale, zero = target["quantization"]
        if scale:
            values = (values.astype(numpy.float64) - zero) * scale
        return numpy.asarray(values, numpy.float32)

    def _open(self, module, options, delegate):
        """Open the interpreter; returns it and the name of its delegate."""
        if isinstance(delegate, dict):
            name = os.path.basename(delegate["library"])
            try:
                library = self._library(delegate["library"], module)
                ctypes.CDLL(library)  # Where it fails, load_delegate prints a traceback besides.
                loaded = module.load_delegate(library, delegate.get("options") or {})
                chosen = dict(options, experimental_delegates=[loaded])
                return _allocated(module, chosen), name
            except (OSError, ValueError, RuntimeError, ModelError) as error:
                if not name.startswith(SPARSE_LIBRARY):
                    raise ModelError("delegate %s cannot be used: %s" % (name, error)) from None
                warnings.warn(
                    "delegate %s cannot be used, continuing with xnnpack: %s" % (name, error),
                    RuntimeWarning,
                    stacklevel=3,
                )
                delegate = "xnnpack"
        if delegate not in ("xnnpack", "none"):
            raise ModelError("unknown delegate %r; choose auto, xnnpack or none" % (delegate,))
        if delegate == "none":
            resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options = dict(options, experimental_op_resolver_type=resolver)
        try:
            return _allocated(module, options), delegate
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                "%s cannot run model.tflite: %s" % (module.__name__.split(".")[0], error)
            ) from None

    def _library(self, library, module):
        """Path of a delegate's library: beside the model, else as the manifest has it."""
        name = os.path.basename(library)
        if not name.startswith(SPARSE_LIBRARY):
            return library
        # Another version can order the structs that both share in another way.
        version, tested = _version(module), self.manifest.get("delegate_tested_with")
        if tested is not None and version not in tested:
            raise ModelError("it is not tested with %s" % version)
        return self._checked(name)

    def _read_json(self, name):
        path = os.path.join(self.folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError) as error:
            raise ModelError("%s: cannot be read: %s" % (path, error)) from None

    def _checked(self, name):
        """Path of a file that has the digest of the manifest."""
        path, digest = os.path.join(self.folder, name), hashlib.sha256()
        try:
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise ModelError("%s: cannot be read: %s" % (path, error.strerror)) from None
        if digest.hexdigest() != self.manifest.get("files", {}).get(name, digest.hexdigest()):
            raise ModelError("%s: differs from its digest in manifest.json; copy it again" % path)
        return path


def by_input(inputs, transforms):
    """Return the transforms, some None, by the names of the model's inputs.

    The data can have names of its own, in the model's order; some can be those of other inputs.
    """
    if len(transforms) == len(inputs) and set(transforms) != set(inputs):
        return dict(zip(inputs, transforms.values()))
    return transforms


def _allocated(module, options):
    interpreter = module.Interpreter(**options)
    interpreter.allocate_tensors()
    return interpreter


def _version(module):
    """Return the runtime's name and version, such as "ai-edge-litert 2.1.6"."""
    package = module.__name__.split(".")[0]
    name = package.replace("_", "-")
    try:
        from importlib import metadata  # Since Python 3.8.

        version = metadata.version(name)
    except ImportError:
        version = getattr(importlib.import_module(package), "__version__", "of unknown version")
    return "%s %s" % (name, version)


def _is_utf8(path):
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_dynamic(source):
    return -1 in [int(size) for size in source.get("shape_signature", ())]


def _quantized(values, source):
    """Convert real values to the dtype of the model's input."""
    scale, zero = source["quantization"]
    dtype = source["dtype"]
    if scale and numpy.issubdtype(dtype, numpy.integer):
        limits = numpy.iinfo(dtype)
        values = numpy.clip(numpy.round(values / scale) + zero, limits.min, limits.max)
    return values.astype(dtype)


def _import_runtime(measured):
    """Import the runtime that the model was measured with, else another one, with a warning."""
    errors = []
    for name in [measured] + [name for name in MODULES if name != measured]:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            errors.append("%s (%s)" % (name.split(".")[0], error))
            continue
        if name != measured:
            text = "%s cannot be imported, continuing with %s; its speed can differ"
            names = tuple(part.split(".")[0] for part in (measured, name))
            warnings.warn(text % names, RuntimeWarning, stacklevel=4)
        return module
    package = measured.split(".")[0].replace("_", "-")
    raise ModelError(
        "no TFLite runtime can be imported in %s: %s; type: %s -m pip install %s"
        % (sys.executable, "; ".join(errors), sys.executable, package)
    )


def _load_raw(folder):
    """Load raw.py beside the model, whatever else is called `raw` in this program."""
    path = os.path.join(folder, "raw.py")
    spec = importlib.util.spec_from_file_location("edgesparse_raw", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (OSError, ImportError) as error:
        raise ModelError("%s: cannot be loaded: %s" % (path, error)) from None
    return module
