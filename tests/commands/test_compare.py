"""Which runs are meant, by id, pipeline and commit; and the command's exit code."""

import subprocess

import pytest

import edgesparse
from edgesparse.measure.results import write_results
from edgesparse.spec.errors import UsageError
from tests.measure.test_comparison import row
from tests.report.test_table import results

COMMIT = "a" * 40


@pytest.fixture
def project(tmp_path):
    runs = {
        "20260101-000000-p-aaaaaa": results(row(p50=1.0)),
        "20260102-000000-p-bbbbbb": results(row(p50=1.5)),
        "20260103-000000-q-cccccc": results(row(p50=3.0)),
    }
    for number, (run, found) in enumerate(runs.items()):
        update = {"run": run, "started": f"2026-01-0{number + 1}", "pipeline": run.split("-")[2]}
        if number == 0:
            update["commit"] = COMMIT + "+"
        write_results(
            found.model_copy(update=update),
            tmp_path / ".edgesparse" / "runs" / run / "results.json",
        )
    return tmp_path


def test_runs_are_found_by_id_beginning_pipeline_and_by_default(project):
    def found(*names):
        done = edgesparse.compare(*names, project=project)
        return done.before[16:], done.after[16:]

    assert found("20260101", "20260102") == ("p-aaaaaa", "p-bbbbbb")
    assert found("20260101-000000-p-aaaaaa", "q") == ("p-aaaaaa", "q-cccccc")
    assert found(None, "p") == ("p-aaaaaa", "p-bbbbbb")
    for names, said in [
        ((None, None), "no run to compare with"),
        (("2026", "q"), "matches 3 run ids"),
        (("nothing", "q"), "no run, pipeline or commit 'nothing'"),
        (("--help", "q"), "no run, pipeline"),
    ]:
        with pytest.raises(UsageError, match=said):
            edgesparse.compare(*names, project=project)


def test_a_commit_is_that_of_its_last_run(project):
    def git(*words):
        own = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *own, *words], cwd=project, check=True, capture_output=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    from edgesparse.graph.versions import revision

    head = revision(project)
    assert len(head) == 40
    path = project / ".edgesparse" / "runs" / "20260101-000000-p-aaaaaa" / "results.json"
    path.write_text(path.read_text().replace(COMMIT, head))
    assert edgesparse.compare("HEAD", "q", project=project).before.endswith("p-aaaaaa")


def test_a_history_goes_over_the_runs_of_a_pipeline(project):
    runs, changed = edgesparse.history("p", project=project)
    assert [run.run[16:] for run in runs] == ["p-aaaaaa", "p-bbbbbb"]
    assert changed == [[], [f"commit: {COMMIT[:12]}+ -> none"]]
    with pytest.raises(UsageError, match="no run of a pipeline 'r'"):
        edgesparse.history("r", project=project)


def test_a_regression_is_exit_code_3(cli, project):
    slower = cli("compare", "20260101", "20260102")
    assert slower.returncode == 3, slower.stderr
    assert "1.50x" in slower.stdout
    assert cli("compare", "20260102", "20260101").returncode == 0
    wrong = cli("compare", "20260101", "--json", "--html", "x.html")
    assert wrong.returncode == 2
    page = cli("history", "p", "--html", "h.html")
    assert page.returncode == 0
    assert "page: h.html" in page.stderr
    assert "<svg" in (project / "h.html").read_text()
