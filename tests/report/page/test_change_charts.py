"""Charts over the runs of a pipeline."""

import re

from edgesparse.measure.comparison import placement_of
from edgesparse.measure.rows import Score
from edgesparse.report.page.change_charts import history_charts
from tests.report.test_table import results, row


def runs_with(*metrics):
    """A run for each list of a variant's metrics."""
    return [results(row("v", p50=1.0).model_copy(update={"metrics": m})) for m in metrics]


def metric(name, value):
    return [Score(name=name, unit="", device=value, samples=100)]


def charts(runs):
    return dict(history_charts(placement_of(runs[0].rows[0]), runs))


def tooltips(chart):
    return re.findall(r"<title>([^<]*)", chart)


def test_only_the_latest_runs_metric_is_drawn_and_zero_is_a_value():
    runs = runs_with(metric("loss", 7.0), metric("accuracy", 0.25), metric("accuracy", 0.0))
    shown = charts(runs)
    assert [name.split(": ")[1] for name in shown] == ["p50 [% of the first run]", "accuracy"]
    assert tooltips(list(shown.values())[1]) == ["v: 0.25, 0"]


def test_runs_without_a_metric_have_no_chart_of_it():
    assert len(charts(runs_with([], []))) == 1
