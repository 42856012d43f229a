"""Compiles a full-int8 file for the Edge TPU, which supports densely stored weights only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from edgesparse.devices import edgetpu
from edgesparse.measure.rows import EdgeTpuInfo
from edgesparse.stages.base.artifacts import read_json, write_json
from edgesparse.stages.base.stage import StageContext, StageKind
from edgesparse.tflite.format.inspect import gzip_bytes


def key_inputs(compiler: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the result depends on: the compiler and its options."""
    return dict(compiler)


def run(context: StageContext) -> None:
    """Write edgetpu.tflite, model.json, the compiler's log and edgetpu.json."""
    tpu = context.plan.tpu
    assert tpu is not None
    source = context.inputs["convert"] / "dense.tflite"
    compiled = edgetpu.compile_model(tpu, source, context.stage.variants[0])
    folder = context.folder
    (folder / "edgetpu.tflite").write_bytes(compiled.content)
    (folder / "compiler.log").write_text(compiled.log_text)
    source_facts = read_json(source.with_name("model.json"))
    digest = hashlib.sha256(compiled.content).hexdigest()
    # The compiled weights are inside one operator: their facts are those of the source.
    sizes = {"bytes": len(compiled.content), "bytes_gzip": gzip_bytes(compiled.content)}
    write_json(
        folder / "model.json", {**source_facts, "sha256": digest, **sizes, "storage": "edgetpu"}
    )
    log = compiled.log
    has_log = bool(log.operators)
    about = EdgeTpuInfo(
        compiler=log.version,
        compiler_sha256=context.stage.spec["compiler"].get("sha256"),
        source_sha256=source_facts["sha256"],
        operators=log.total if has_log else None,
        mapped_operators=log.mapped if has_log else None,
        subgraphs=log.subgraphs,
        on_chip_bytes=log.on_chip_bytes,
        on_chip_free_bytes=log.on_chip_free_bytes,
        off_chip_bytes=log.off_chip_bytes,
    )
    notes = edgetpu.describe(compiled)
    write_json(folder / "edgetpu.json", {"about": about.model_dump(), "notes": notes})


# In this process, which has the connection to a build host; the compiler is a subprocess, and its
# crash an exit code.
KIND = StageKind("compile", 1, (), run, in_child=False, loads=False)
