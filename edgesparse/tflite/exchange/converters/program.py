"""The converters' side: a program for the Python of a converter's environment.

That Python may not have the packages of edgesparse, so modules here import one another and nothing
else of it. The last line that the program prints is a JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from edgesparse.tflite.exchange.converters.answers import RefusedError, cause_of


def main(text: str) -> None:
    """Convert by the JSON object in `text`: see `convert.py`, which writes it."""
    arguments = json.loads(text)
    sys.path += arguments["path"]
    # Converters print to stdout, also from C++.
    reply_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        reply = _convert(arguments)
        import numpy as np

        np.savez(Path(arguments["target"]).with_suffix(".npz"), **reply.pop("arrays"))
    except RefusedError as error:
        reply = {"wrong": f"{arguments['name']}: {error}"}
    except Exception as error:
        reply = {"wrong": f"{arguments['name']} cannot be converted: {cause_of(error)}"}
    reply_to.write("\n" + json.dumps(reply) + "\n")
    reply_to.flush()


def _convert(arguments: dict[str, Any]) -> dict[str, Any]:
    source, target = Path(arguments["source"]), Path(arguments["target"])
    samples = arguments["samples"]
    if arguments["format"] == "onnx":
        from edgesparse.tflite.exchange.converters import onnx_model

        return onnx_model.from_onnx(source, target, samples, arguments["external"])
    from edgesparse.tflite.exchange.converters import torch_program

    if "function" not in arguments:
        return torch_program.convert(torch_program.load(source), target, samples)
    from edgesparse.tflite.exchange.converters import torch_network

    program, read = torch_network.trace(
        source, arguments["function"], arguments["weights"], arguments["inputs"]
    )
    return {**torch_program.convert(program, target, samples), "read": read}
