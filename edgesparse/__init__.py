"""Sparse neural networks on real edge devices: train, store the zeros, deploy, measure.

    import edgesparse as es

    results = es.deploy("pipelines/digits.yaml", devices=["pi"], listener=print)
    results.best("pi")

    with es.Project(".", listener=print) as project:  # Devices stay connected, processes warm.
        project.deploy("pipelines/digits.yaml", devices=["pi"])
        project.bench("model.tflite", device="pi")

The command line does the same with the same methods. Each name is loaded when it is first used:
importing the package imports nothing heavy.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# TensorFlow's model optimization toolkit works with Keras 2 only. This must be set before anybody
# imports TensorFlow, and nothing of ours is imported before this file.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_MODULES = {
    "Project": "project",
    "load_results": "project",
    "list_runs": "project",
    "load_pipeline": "spec.reading.load",
    "track": "report.tracking",
    "write_page": "report.page",
    "html_tables": "report.page.notebook",
    "plot": "report.page.notebook",
    "Results": "measure.results",
    "EdgesparseError": "spec.errors",
}
_COMMANDS = (
    "deploy", "bench", "plan", "search", "sensitivity", "compress", "inspect", "encode", "export",
    "compare", "history",
)  # fmt: skip
"""Methods of Project that are functions of the package, too."""
__all__ = [
    "EdgesparseError",
    "Project",
    "Results",
    "bench",
    "compare",
    "compress",
    "deploy",
    "encode",
    "export",
    "history",
    "html_tables",
    "inspect",
    "list_runs",
    "load_pipeline",
    "load_results",
    "plan",
    "plot",
    "search",
    "sensitivity",
    "track",
    "write_page",
]

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesparse.commands.compression.result import Compressed
    from edgesparse.commands.encode import Encoded
    from edgesparse.commands.inspect import Inspection
    from edgesparse.commands.plan import Planned
    from edgesparse.commands.sensitivity import LayerSensitivities
    from edgesparse.measure.comparison import Comparison
    from edgesparse.measure.results import Results
    from edgesparse.measure.trials import SearchResult
    from edgesparse.project import Project, list_runs, load_results
    from edgesparse.report.page import write_page
    from edgesparse.report.page.notebook import html_tables, plot
    from edgesparse.report.tracking import track
    from edgesparse.spec.errors import EdgesparseError
    from edgesparse.spec.reading.load import load_pipeline

    deploy: Callable[..., Results]
    bench: Callable[..., Results]
    plan: Callable[..., Planned]
    search: Callable[..., tuple[SearchResult, Path]]
    sensitivity: Callable[..., LayerSensitivities]
    compress: Callable[..., Compressed]
    inspect: Callable[..., Inspection]
    encode: Callable[..., Encoded]
    export: Callable[..., list[Path]]
    compare: Callable[..., Comparison]
    history: Callable[..., tuple[list[Results], list[list[str]]]]


def __getattr__(name: str) -> Any:
    if name in _COMMANDS:
        value = import_module("edgesparse.project").function(name)
    elif name in _MODULES:
        value = getattr(import_module(f"edgesparse.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'edgesparse' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
