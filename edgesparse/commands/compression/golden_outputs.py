"""Golden outputs of a .tflite file: those of this machine, which a device's runtime must have, too.

Run as a process of its own, since a runtime can crash: python -m MODULE MODEL SAMPLES TARGET.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module
from edgesparse.tflite.format.encode import decode
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.signature import dequantize, read_signature
from edgesparse.tflite.operator_outputs import open_interpreter, run
from edgesparse.tflite.post_training.calibration_samples import split_samples, with_sample_shapes
from edgesparse.tflite.verify import MIN_AGREEMENT, TOLERANCE, Limits

SAMPLES = 16
LOOSE = Limits(TOLERANCE["dynamic"], MIN_AGREEMENT["dynamic"])
"""For activations in 8 bits, which kernels round differently."""
TIGHT = Limits(TOLERANCE["f16"], MIN_AGREEMENT["f16"])


def write_golden(model: Path, samples: Path, target: Path, timeout_seconds: float) -> None:
    """Write inputs that no method has used, and the file's outputs without a delegate.

    Raises:
        EdgesparseError: the file does not run here.
    """
    run_json_module(__name__, (model, samples, target), str(model), timeout_seconds)


def _write(model: Path, samples: Path, target: Path) -> dict[str, object]:
    content = model.read_bytes()
    if any(weight.form != "dense" for weight in inspect(content, model.name).weights):
        content = decode(content, model.name)
    _, held_out = split_samples(samples, content)
    few = {name: values[:SAMPLES] for name, values in held_out.items()}
    content = with_sample_shapes(content, few)
    names = {spec.index: spec.name for spec in read_signature(content).inputs}
    interpreter = open_interpreter(content)
    ends = interpreter.get_output_details()
    # In the order of the runtime, and without the batch, as a device's agent has them.
    order = [names[source["index"]] for source in interpreter.get_input_details()]
    rows = [
        [dequantize(interpreter.get_tensor(end["index"]), end)[0] for end in ends]
        for _ in run(interpreter, content, few, SAMPLES)
    ]
    outputs = {str(i): np.stack(values) for i, values in enumerate(zip(*rows, strict=True))}
    save_golden(target, {name: few[name] for name in order}, outputs)
    return {}


def main(model: str, samples: str, target: str) -> None:
    print_json_reply(lambda: _write(Path(model), Path(samples), Path(target)), f"{model}: ")


if __name__ == "__main__":
    main(*sys.argv[1:])
