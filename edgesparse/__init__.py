"""Sparse neural networks on real edge devices: train, store the zeros, deploy, measure.

    import edgesparse as es

    results = es.deploy("pipelines/digits.yaml", devices=["pi"], listener=print)
    results.best("pi")

The command line does the same with the same functions. Each is loaded when it is first used:
importing the package imports nothing heavy.
"""

import os
import sys
import types
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# TensorFlow's model optimization toolkit works with Keras 2 only. This must be set before anybody
# imports TensorFlow, and nothing of ours is imported before this file.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_PLACES = {
    "load_pipeline": "spec.reading.load",
    "plan": "runs.planning",
    "deploy": "runs.deploy",
    "compare": "runs.comparing",
    "compress": "runs.compressing",
    "history": "runs.comparing",
    "bench": "runs.bench",
    "inspect": "runs.inspection",
    "encode": "runs.encoding",
    "export": "runs.exporting",
    "sensitivity": "runs.sensitivity",
    "sweep": "runs.search.sweep",
    "track": "report.tracking",
    "load_results": "graph.workspace",
    "list_runs": "graph.workspace",
    "write_page": "report.page",
    "Results": "bench.results",
    "EdgesparseError": "spec.errors",
}
__all__ = [
    "EdgesparseError",
    "Results",
    "bench",
    "compare",
    "compress",
    "deploy",
    "encode",
    "export",
    "history",
    "inspect",
    "list_runs",
    "load_pipeline",
    "load_results",
    "plan",
    "sensitivity",
    "sweep",
    "track",
    "write_page",
]

if TYPE_CHECKING:
    from edgesparse.bench.results import Results
    from edgesparse.graph.workspace import list_runs, load_results
    from edgesparse.report.page import write_page
    from edgesparse.report.tracking import track
    from edgesparse.runs.bench import bench
    from edgesparse.runs.comparing import compare, history
    from edgesparse.runs.compressing import compress
    from edgesparse.runs.deploy import deploy
    from edgesparse.runs.encoding import encode
    from edgesparse.runs.exporting import export
    from edgesparse.runs.inspection import inspect
    from edgesparse.runs.planning import plan
    from edgesparse.runs.search.sweep import sweep
    from edgesparse.runs.sensitivity import sensitivity
    from edgesparse.spec.errors import EdgesparseError
    from edgesparse.spec.reading.load import load_pipeline


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'edgesparse' has no attribute {name!r}")
    found = getattr(import_module(f"edgesparse.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


class _Room(types.ModuleType):
    """The room bench/, which may be called: `edgesparse.bench(...)` is its name's other meaning."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("edgesparse.runs.bench").bench(*args, **kwargs)


class _Package(types.ModuleType):
    """Importing anything of a room makes it an attribute of the package, in place of what has its
    name here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "bench" and isinstance(value, types.ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
