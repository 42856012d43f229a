"""What soak checks after each try: results whole, nothing left behind, no foreign file touched."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgesparse.graph.store import Store
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.errors import EdgesparseError
from tests.conftest import our_ssh
from tests.devices.ondevice.test_detached import processes
from tests.devices.setup.test_releases import require_whole
from tests.tools.soak_bench import Bench, digest_of


def look_at_results(bench: Bench, name: str, project: Path, code: int) -> None:
    """What was measured is there, or it never came that far."""
    workspace = Workspace(project)
    for run in workspace.run_ids():
        try:
            results = workspace.results(run)
        except EdgesparseError as error:
            bench.lost.append(f"{name}: results of {run}: {error}")
            continue
        if any(row.status == "ok" and row.latency_ms is None for row in results.rows):
            bench.lost.append(f"{name}: a row of {run} is ok and has no figures")
    if code == 0 and (not results.finished or any(r.status != "ok" for r in results.rows)):
        bench.lost.append(f"{name}: it said 0 and has failed rows")
    store = project / ".edgesparse" / "store"
    problems = Store(store).problems() if store.is_dir() else []
    if problems:
        bench.lost.append(f"{name}: {problems}")


def look_at_canary(bench: Bench, name: str, project: Path) -> None:
    """The other device is measured only after the canary is well and has its release."""
    workspace = Workspace(project)
    for run in workspace.run_ids():
        with suppress(EdgesparseError):
            results = workspace.results(run)
            if not any(row.device == "second" for row in results.rows):
                continue
            canary = [row.status for row in results.rows if row.device == "board"]
            if set(canary) != {"ok"}:
                bench.lost.append(f"{name}: {run} went on after its canary failed: {canary}")
            if not any(release.device == "board" for release in results.releases):
                bench.lost.append(f"{name}: {run} went on without a release of its canary")


def look_at_releases(bench: Bench, name: str) -> None:
    """After a deploy that nothing broke, what is current is whole."""
    try:
        require_whole(bench.workdir / "releases" / "tiny" / "current")
    except (OSError, ValueError, AssertionError) as error:
        bench.lost.append(f"{name}: the current release is damaged: {error!r}")


def look_around(bench: Bench, name: str) -> None:
    """No orphan, no foreign file touched, no planted module imported, nothing temporary left."""
    if bench.proof.exists():
        bench.lost.append(f"{name}: imported {bench.proof.read_text()}")
        bench.proof.unlink()
    remains = {
        "processes on the device": list(processes(bench.workdir).values()),
        "ssh processes here": list(our_ssh().values()),
        "temporary files here": [
            str(path)
            for path in bench.temporary.iterdir()
            if not any(path in foreign.parents for foreign in bench.foreign)
        ],
        "files and jobs there": [
            str(path)
            for folder in ("files", "jobs")
            if (bench.workdir / folder).is_dir()
            for path in (bench.workdir / folder).iterdir()
            if path not in bench.foreign
        ],
        "half artifacts": [
            str(path)
            for project in bench.projects
            for path in (project / ".edgesparse" / "store").glob("tmp-*")
        ],
        "foreign files": [
            str(path) for path, digest in bench.foreign.items() if digest_of(path) != digest
        ],
    }
    for what, left in remains.items():
        if left:
            bench.lost.append(f"{name}: {what}: {left[:5]}")
