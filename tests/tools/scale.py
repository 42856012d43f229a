"""How cost grows: planning, listing and pages from 10 to 10 000 variants; what a stage costs beside
its own work on a cluster of 1, 2 and 4 workers; and what is lost where workers are killed.

    python -m tests.tools.scale [--variants 1000] [--workers 1 2 4]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgesparse.commands.fleet.target import open_target
from edgesparse.commands.plan import executor_for, plan_for
from edgesparse.graph import events
from edgesparse.graph.digests import digests, inputs_of
from edgesparse.graph.execution.cluster import DaskCluster
from edgesparse.graph.execution.pool import Workers, checked_jobs
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.plan import build_plan
from edgesparse.graph.store import MANIFEST, Store
from edgesparse.graph.versions import library_versions
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.report.page import html_text
from edgesparse.spec.reading.load import parse_device, parse_pipeline
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from tests.conftest import HERE
from tests.report.test_table import results, row
from tests.tools.dasks import Dask

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
            assert all(store.damage(key) is None and store.has(key) for key in keys)
            listed = time.perf_counter()
            found = results(*(row(f"v{n}", 1.0 + n / count) for n in range(count)))
            page = html_text(found)
            paged = time.perf_counter()
            print(
                f"{count:8}  {read - begun:6.2f}  {planned - read:6.2f}  {listed - listing:9.2f}  "
                f"{paged - listed:6.2f}  {len(page.encode()) / 1e6:7.2f}",
                flush=True,
            )


@dataclass(frozen=True)
class Measured:
    """Many stages carried out somewhere."""

    seconds: float
    beside_ms: list[float]
    """What each stage took from its beginning to its end, as told here, less what its artifact says
    that it took; sorted."""
    client_mb: float
    """By how much this process's memory grew at most."""
    digests: dict[str, dict[str, str]]
    """Of what is in each artifact."""

    def told(self, where: str) -> str:
        beside, count = self.beside_ms, len(self.beside_ms)
        return (
            f"{count} stages, {where}: {self.seconds:.0f} s, {1000 * self.seconds / count:.0f} ms "
            f"each; beside a stage's own work: median {beside[count // 2]:.1f} ms, mean "
            f"{sum(beside) / count:.1f} ms; client + {self.client_mb:.0f} MB"
        )


def carried_out(folder: Path, count: int, address: str | None) -> Measured:
    """Train a network, and carry out the sparsify stage of so many variants of it."""
    here = HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
    device = parse_device(here).spec
    loaded, log = pipeline(folder, count), folder / "log.txt"
    started, took = {}, {}

    def listen(event: events.RunEvent) -> None:
        if isinstance(event, events.StageStarted):
            started[event.label] = time.perf_counter()
        elif isinstance(event, events.StageDone) and event.label in started:
            took[event.label] = time.perf_counter() - started[event.label]

    with closing(open_target(device)) as target, Workers(log, checked_jobs(None)) as workers:
        plan = plan_for(loaded, target, {}, inputs_of(loaded))
        stages = [one for one in plan.stages if one.name in ("samples", "train", "sparsify")]
        store = Store(folder / "store")
        cluster = DaskCluster(address) if address else None
        with executor_for(
            loaded, target, store, workers, "x", {}, inputs_of(loaded), None, cluster
        ) as executor:
            before = memory_mb("VmRSS")
            begun = time.perf_counter()
            errors = execute(stages, executor, listen)
            seconds = time.perf_counter() - begun
            grown = memory_mb("VmHWM") - before
        if cluster is not None:
            cluster.close()
    assert not errors, list(errors.values())[:3]
    about = [json.loads(path.read_text()) for path in store.root.glob(f"*/{MANIFEST}")]
    own = {one["label"]: one["seconds"] for one in about}
    beside = [1000 * (took[name] - own[name]) for name in took if name.startswith("sparsify")]
    found = {one["key"]: contents(store.path(one["key"]), one["files"]) for one in about}
    return Measured(seconds, sorted(beside), grown, found)


def contents(folder: Path, files: dict[str, dict[str, str]]) -> dict[str, str]:
    """Digests of what is in an artifact. A .keras file also has the time at which it was saved."""
    found = {name: file["sha256"] for name, file in files.items() if not name.endswith(".keras")}
    for path in folder.glob("*.keras"):
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                if one.filename != "metadata.json":
                    found[one.filename] = f"{one.CRC:x}"
    return found


def memory_mb(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status[what].split()[0]) / 1000


def killing(dask: Dask, every_seconds: float, done: threading.Event) -> int:
    """Kill the older of two workers again and again, and start another one; how often."""
    count = 0
    while not done.wait(every_seconds):
        count += 1
        dask.start_worker(f"next-{count}")
        dask.kill(dask.workers[-3])
    return count


def clusters(count: int, workers: Sequence[int]) -> None:
    """The same stages here, on clusters, and on one whose workers are killed every 20 seconds."""
    with tempfile.TemporaryDirectory() as place:
        alone = Path(place, "alone")
        alone.mkdir()
        here = carried_out(alone, count, None)
        print(here.told("this machine"), flush=True)
        for number in workers:
            folder = Path(place, f"workers-{number}")
            folder.mkdir()
            with Dask(folder) as dask:
                for name in range(number):
                    dask.start_worker(f"worker-{name}")
                found = carried_out(folder, count, dask.address)
            print(found.told(f"{number} workers"), "; ", differing(here, found), sep="", flush=True)
        folder = Path(place, "killed")
        folder.mkdir()
        with Dask(folder) as dask, ThreadPoolExecutor() as pool:
            for name in ("one", "two"):
                dask.start_worker(name)
            done = threading.Event()
            kills = pool.submit(killing, dask, 20.0, done)
            try:
                found = carried_out(folder, count, dask.address)
            finally:
                done.set()
            where = f"two workers, one of them killed every 20 s, {kills.result()} times"
            print(found.told(where), "; ", differing(here, found), sep="", flush=True)


def differing(one: Measured, other: Measured) -> str:
    """How many artifacts have other bytes."""
    assert one.digests.keys() == other.digests.keys()
    count = sum(other.digests[key] != files for key, files in one.digests.items())
    return f"{count} of {len(one.digests)} artifacts differ"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    given = parser.parse_args()
    growth()
    clusters(given.variants, given.workers)
