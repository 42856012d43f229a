"""How cost grows: planning, listing and pages from 10 to 10 000 variants, and what a stage costs
beside its own work on a cluster of 1, 2 and 4 workers.

    python -m tests.scale [--variants 1000] [--workers 1 2 4]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import edgesparse
from edgesparse.bench.rows import RuntimeInfo
from edgesparse.graph import progress as told
from edgesparse.graph.fingerprints import digests, library_versions
from edgesparse.graph.plan import build_plan
from edgesparse.graph.store import MANIFEST, Store
from edgesparse.report.page import html_text
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from tests.conftest import HERE
from tests.report.test_table import results, row

METHOD = '''
import numpy as np

def zero(model, share):
    """The smallest weights are zero; nothing is trained."""
    for layer in model.layers:
        weights = layer.get_weights()
        if weights:
            limit = np.quantile(np.abs(weights[0]), share)
            layer.set_weights([np.where(np.abs(weights[0]) < limit, 0, weights[0]), *weights[1:]])
    return model
'''
PIPELINE = """
name: many
data: {name: digits, args: {input_shape: [8, 8, 1]}}
model: {name: mlp, args: {input_shape: [8, 8, 1], classes: 10, widths: [16]}}
train: {epochs: 1}
variants:
  dense: {}
"""


def pipeline(folder: Path, count: int) -> object:
    (folder / "method.py").write_text(METHOD)
    lines = [
        f"  v{n}: {{sparsify: {{method: 'method.py:zero', "
        f"args: {{share: {(n + 1) / (count + 2):.6f}}}}}, storage: dense}}"
        for n in range(count)
    ]
    return parse_pipeline(PIPELINE + "\n".join(lines), str(folder / "many.yaml"))


def growth() -> None:
    print("variants  read s  plan s  listing s  page s  page MB")
    for count in (10, 100, 1000, 10_000):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            begun = time.perf_counter()
            loaded = pipeline(folder, count)
            read = time.perf_counter()
            runtime = RuntimeInfo(name="ai-edge-litert", version="2.1.6")
            profiles = {"ai-edge-litert": Profile(Machine("ai-edge-litert", "2.1.6", "x86_64"))}
            plan = build_plan(loaded.spec, digests(loaded), library_versions(), [runtime], profiles)
            planned = time.perf_counter()
            store = Store(folder / "store")
            keys = [stage.key for stage in plan.stages]
            for key in keys:
                (store.root / key).mkdir()
                (store.root / key / MANIFEST).write_text('{"files": {}}')
            listing = time.perf_counter()
            assert all(store.wrong(key) is None and store.has(key) for key in keys)
            listed = time.perf_counter()
            found = results(*(row(f"v{n}", 1.0 + n / count) for n in range(count)))
            page = html_text(found)
            paged = time.perf_counter()
            print(
                f"{count:8}  {read - begun:6.2f}  {planned - read:6.2f}  {listed - listing:9.2f}  "
                f"{paged - listed:6.2f}  {len(page.encode()) / 1e6:7.2f}",
                flush=True,
            )


def overhead(count: int, workers: int | None) -> None:
    """What a stage costs beside its own work: from its beginning to its end, as told here, less the
    time that its artifact says it took."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "devices").mkdir()
        here = HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
        (folder / "devices" / "here.yaml").write_text(here)
        started, took = {}, {}

        def listen(event: told.Told) -> None:
            if isinstance(event, told.StageStarted):
                started[event.label] = time.perf_counter()
            elif isinstance(event, told.StageDone) and event.label in started:
                took[event.label] = time.perf_counter() - started[event.label]

        begun = time.perf_counter()
        done = edgesparse.deploy(
            pipeline(folder, count), ["here"], benchmark=False, project=folder, listener=listen,
            cluster=None if workers is None else f"local:{workers}",
        )  # fmt: skip
        total = time.perf_counter() - begun
        assert not done.failed
        own = {}
        for manifest in (folder / ".edgesparse" / "store").glob(f"*/{MANIFEST}"):
            about = json.loads(manifest.read_text())
            own[about["label"]] = about["seconds"]
        away = [label for label in took if label.split()[0] in ("sparsify", "convert")]
        beside = sorted(1000 * (took[label] - own[label]) for label in away)
        place = "this machine" if workers is None else f"local:{workers}"
        print(
            f"{count} variants, {place}: {total:.0f} s, {len(own)} stages; beside a stage's own "
            f"work: median {beside[len(beside) // 2]:.1f} ms, "
            f"mean {sum(beside) / len(beside):.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    given = parser.parse_args()
    growth()
    for workers in (None, *given.workers):
        overhead(given.variants, workers)
