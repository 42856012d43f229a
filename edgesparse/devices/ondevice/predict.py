"""Runs the released model on a sample: python predict.py INPUT.npy

Where the data defines a transform, INPUT can be a raw file, which is transformed as in training, or
a text. A model with several inputs takes a file for each, in their order or as NAME=FILE.

Exit codes: 0 answered; 1 wrong arguments, files or installation, with one message.
"""

import sys
import warnings

from edgesparse_model import Model, ModelError


def match_files(model, arguments):
    """Return the file of each input, by name; a text serves all inputs that are made of texts."""
    if len(arguments) == 1 and model.takes_text:
        return dict.fromkeys(model.inputs, arguments[0])
    named = dict(text.split("=", 1) for text in arguments if text.split("=", 1)[0] in model.inputs)
    return named if len(named) == len(arguments) else dict(zip(model.inputs, arguments))


def show(model, output):
    """Print the five likeliest labels, or the first numbers."""
    values = output.reshape(-1)
    if model.labels and len(values) == len(model.labels):
        for label, score in model.top(values):
            print("%s\t%.4f" % (label, score))
    else:
        print("shape %s" % (list(output.shape),))
        print(
            " ".join("%.6g" % value for value in values[:20]) + (" ..." if values.size > 20 else "")
        )


def main(arguments):
    # A terminal that cannot show a label's letters shows their numbers.
    sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: sys.stderr.write("warning: %s\n" % message)
    try:
        model = Model(warm_up=False)
        files = match_files(model, arguments)
        if not arguments or len(files) != len(model.inputs):
            names = ", ".join(model.describe(name) for name in model.inputs)
            sys.stderr.write(__doc__ + "\nIts inputs: " + names + "\n")
            return 1
        outputs = model(files)
    except (ModelError, OSError, ValueError, RuntimeError, ImportError) as error:
        file, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        sys.stderr.write("error: %s\n" % ("%s: %s" % (file, reason) if file else error))
        return 1
    for name in model.outputs:
        if len(model.outputs) > 1:
            print("# " + name)
        show(model, outputs[name] if len(model.outputs) > 1 else outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
