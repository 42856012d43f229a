"""Compares the delegate with XNNPACK on a device, which needs numpy and the runtime only.

    python delegate_guest.py CASES.npz LIBRARY ISA

Cases are {number}: a file's bytes, {number}-{i}: its inputs. Prints how many were equal, then the
numbers of those that were not.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate


def outputs(content, inputs, delegates):
    """All outputs for each input in turn."""
    interpreter = Interpreter(model_content=content, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    results = []
    for values in inputs:
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        results += [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]
    return results


def main(cases, library, isa):
    options = {"min_zeros": "0", "dense": "always", "isa": isa}
    equal, different = 0, []
    with np.load(cases) as stored:
        numbers = [name for name in stored.files if "-" not in name]
        for number in numbers:
            content = stored[number].tobytes()
            inputs = [stored[f"{number}-{i}"] for i in range(3)]
            plain = outputs(content, inputs, None)
            ours = outputs(content, inputs, [load_delegate(library, options)])
            if all((a == b).all() for a, b in zip(plain, ours, strict=True)):
                equal += 1
            else:
                different.append(number)
    print(equal, *different)


if __name__ == "__main__":
    main(*sys.argv[1:])
