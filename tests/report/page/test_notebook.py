"""Results in a notebook."""

import io

import pytest

import edgesparse as es
from tests.report.page.sample_run import run as results


def test_tables_are_html_with_every_row_and_nothing_unescaped():
    run = results()
    hostile = run.model_copy(update={"failures": ["<script>alert(1)</script>"]})
    text = hostile._repr_html_()
    assert text.count("<tr>") > len(run.rows)
    for row in run.rows:
        assert f">{row.variant}" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_plot_has_an_axes_for_each_table():
    run = results()
    figure = run.plot()
    placements = {(r.device, r.runtime.name, r.threads) for r in run.rows if r.latency_ms}
    assert len(figure.axes) == len(placements)
    assert figure._repr_png_().startswith(b"\x89PNG")
    hostile = [row.model_copy(update={"variant": r"$\frac$"}) for row in run.rows]
    run.model_copy(update={"rows": hostile}).plot().savefig(io.BytesIO(), format="png")
    unscored = [row.model_copy(update={"metrics": []}) for row in run.rows]
    assert run.model_copy(update={"rows": unscored}).plot().axes[0].get_yticklabels()


def test_the_best_row_says_what_it_is():
    run = results()
    for info in run.devices:
        row = run.best(info.name)
        if row is not None:
            assert str(row).startswith(f"{row.variant} on {row.device} ({row.runtime.name}, ")
            assert " ms" in str(row)


def test_the_package_lists_what_is_public():
    assert set(dir(es)) == {*es.__all__, "__version__"}
    for name in dir(es):
        assert getattr(es, name) is not None
    with pytest.raises(AttributeError):
        es.annotations  # noqa: B018
