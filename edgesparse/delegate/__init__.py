"""The int8 delegate of edgesparse: runs files with zeros faster than dense kernels do.

    from ai_edge_litert.interpreter import Interpreter
    from edgesparse import delegate

    fast = delegate.load("ai-edge-litert")
    interpreter = Interpreter("model.tflite", experimental_delegates=[fast])

It is a shared library for each architecture, which any program loads by the runtime's own
load_delegate. Answers are those of XNNPACK, bit for bit; nodes that it cannot take it leaves.
"""

from edgesparse.delegate.build import BuildError, library
from edgesparse.delegate.load import load, refused

__all__ = ["BuildError", "library", "load", "refused"]
