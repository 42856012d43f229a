"""A full-int8 file becomes one for the Edge TPU, which takes densely stored weights only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from edgesparse.devices import edgetpu
from edgesparse.measure.rows import EdgeTpuInfo
from edgesparse.stages.base.artifacts import read_json, write_json
from edgesparse.stages.base.stage import StageContext, StageKind


def key_inputs(compiler: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the result depends on: the compiler itself, and how it is called."""
    return dict(compiler)


def run(context: StageContext) -> None:
    """Leave edgetpu.tflite, model.json, the compiler's log and what it says."""
    tpu = context.plan.tpu
    assert tpu is not None
    source = context.inputs["convert"] / "dense.tflite"
    compiled = edgetpu.compile_model(tpu, source, context.stage.variants[0])
    folder = context.folder
    (folder / "edgetpu.tflite").write_bytes(compiled.content)
    (folder / "compiler.log").write_text(compiled.log_text)
    own = read_json(source.with_name("model.json"))
    digest = hashlib.sha256(compiled.content).hexdigest()
    # The weights are inside one operator now: what they are is known of the source.
    sizes = {"bytes": len(compiled.content), "bytes_gzip": edgetpu.gzip_bytes(compiled.content)}
    write_json(folder / "model.json", {**own, "sha256": digest, **sizes, "storage": "edgetpu"})
    log = compiled.log
    known = bool(log.operators)
    about = EdgeTpuInfo(
        compiler=log.version,
        compiler_sha256=context.stage.spec["compiler"].get("sha256"),
        source_sha256=own["sha256"],
        operators=log.total if known else None,
        mapped_operators=log.mapped if known else None,
        subgraphs=log.subgraphs,
        on_chip_bytes=log.on_chip_bytes,
        on_chip_free_bytes=log.on_chip_free_bytes,
        off_chip_bytes=log.off_chip_bytes,
    )
    notes = edgetpu.describe(compiled)
    write_json(folder / "edgetpu.json", {"about": about.model_dump(), "notes": notes})


# It may ask a build host over SSH, so it stays where connections are; the compiler itself is a
# program of its own, and its crash is an exit code.
KIND = StageKind("compile", 1, (), run, in_child=False, loads=False)
