"""Runs .tflite files with one runtime, each in a process of its own, and says how far they are off.

    python run_files.py MODULE FOLDER    one line of JSON for each FOLDER/NAME.tflite and NAME.npz

Of this file nothing imports TensorFlow: tflite-runtime cannot be loaded beside it.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np

from edgesparse.devices.ondevice.agent import infer


def errors_of(module, path):
    """The largest difference of each sample to what is expected, as a share of the whole range."""
    interpreter = importlib.import_module(module).Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    with np.load(path.with_suffix(".npz")) as stored:
        x, expected = [stored[name] for name in stored.files if name[0] == "x"], stored["y"]
        request = {"stateful": True}
        if "order" in stored.files:
            outputs = [end["index"] for end in interpreter.get_output_details()]
            request |= {"inputs": stored["order"].tolist(), "outputs": outputs}
    (found,) = infer(interpreter, request, x)
    off = np.abs(found - expected).reshape(len(expected), -1).max(axis=1)
    return (off / (np.ptp(expected) or 1.0)).tolist()


def main(module, folder):
    for path in sorted(Path(folder).glob("*.tflite")):
        child = os.fork()
        if child == 0:
            try:
                said = {"file": path.stem, "errors": errors_of(module, path)}
            except Exception as error:
                said = {"file": path.stem, "failed": str(error)[:300]}
            print(json.dumps(said), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"file": path.stem, "failed": f"crashed ({status})"}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
