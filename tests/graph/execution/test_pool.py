"""Several processes: they work at the same time, the warm one first, and all end together."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from edgesparse.graph.execution import pool
from edgesparse.graph.execution.pool import Workers, checked_jobs, default_jobs
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.stages.base.stage import PlanContext
from tests.conftest import ROOT, TINY
from tests.devices.ondevice.test_detached import await_end
from tests.graph.execution.test_worker import PARTS


@pytest.fixture(scope="module")
def context():
    return PlanContext(parse_pipeline(TINY, str(ROOT / "tiny.yaml")))


def test_two_work_at_the_same_time_each_with_a_log_of_its_own(context, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    with Workers(tmp_path / "log.txt", 2) as workers, ThreadPoolExecutor(2) as threads:
        name = "tests.graph.execution.tasks:meets"
        # Each goes on only when the other is there.
        futures = [
            threads.submit(workers.call, name, context, PARTS, *places)
            for places in ((first, second), (second, first))
        ]
        result = {future.result() for future in futures}
        assert len(result) == 2
        # Alone, the one that worked last works again.
        add = "tests.graph.execution.tasks:add"
        again = {workers.call(add, context, PARTS, 1, 1)[1] for _ in range(3)}
        assert len(again) == 1
        assert again < result
        assert (tmp_path / "log.txt").exists()
        assert (tmp_path / "log-2.txt").exists()
    await_end(result)


def test_an_interrupt_ends_what_other_threads_wait_for(context, tmp_path):
    with Workers(tmp_path / "log.txt", 2) as workers, ThreadPoolExecutor(1) as threads:
        name = "tests.graph.execution.tasks:waits"

        def begun(*_):
            workers.interrupt()

        future = threads.submit(
            workers.call, name, context, PARTS, str(tmp_path / "pids"), progress=begun
        )
        with pytest.raises(EdgesparseError, match="SIGKILL"):
            future.result()
    await_end(map(int, (tmp_path / "pids").read_text().split()))


def test_how_many_goes_by_cores_and_memory(monkeypatch):
    assert 1 <= default_jobs() <= pool.MOST_BY_DEFAULT
    monkeypatch.setattr(pool, "_available_bytes", lambda: 1 << 30)
    assert default_jobs() == 1
    assert checked_jobs(None) == 1
    assert checked_jobs(3) == 3
    with pytest.raises(UsageError, match="--jobs 0: must be at least 1"):
        checked_jobs(0)
