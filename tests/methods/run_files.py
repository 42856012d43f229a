"""Runs .tflite files with one runtime, each in a process of its own, and says how far they are off.

    python run_files.py MODULE    for each path of a NAME.tflite on stdin, which has a NAME.npz
                                  beside it, a line of JSON

One such process serves many files: a fork costs nothing beside the start of an interpreter. Of this
file nothing imports TensorFlow: tflite-runtime cannot be loaded beside it.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np

from edgesparse.devices.ondevice.agent import infer


def errors_of(interpreter_class, path):
    """The largest difference of each sample to what is expected, as a share of the whole range."""
    interpreter = interpreter_class(model_path=str(path))
    interpreter.allocate_tensors()
    with np.load(path.with_suffix(".npz")) as stored:
        x, expected = [stored[name] for name in stored.files if name[0] == "x"], stored["y"]
        request = {"stateful": True}
        if "order" in stored.files:
            outputs = [end["index"] for end in interpreter.get_output_details()]
            request |= {"inputs": stored["order"].tolist(), "outputs": outputs}
    (answers,) = infer(interpreter, request, x)
    off = np.abs(answers - expected).reshape(len(expected), -1).max(axis=1)
    return (off / (np.ptp(expected) or 1.0)).tolist()


def main(module):
    interpreter_class = importlib.import_module(module).Interpreter
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        child = os.fork()
        if child == 0:
            try:
                answer = {"errors": errors_of(interpreter_class, path)}
            except Exception as error:
                answer = {"failed": str(error)[:300]}
            print(json.dumps(answer), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"failed": f"crashed ({status})"}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
