import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from edgesparse.report.page import MAX_BYTES, html_text, write_page
from edgesparse.spec.errors import EdgesparseError
from tests.report.page.sample_run import HOSTILE, run
from tests.report.test_hostile import NASTY, results
from tests.report.test_table import results as table_of
from tests.report.test_table import row


class Parts(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text.append(data)


def test_page_has_all_results():
    parts = Parts(html_text(run()))
    text = " ".join(" ".join(parts.text).split())
    for part in [
        "ai-edge-litert 2.1.6 | delegate xnnpack", "latency by variant [ms]",
        "accuracy [%] against latency [ms]", "latency by round", "accuracy [%] against file size",
        "gate met: sparse-f32 accuracy_drop 0.01", "its process crashed",
        "accuracy % 99.0 97.5 1.5", "dense_1", "1.00 MB → 123.5 KB", "zeros pay",
        "80.0 % of 90%", "yes : pi skips its zeros",
        "target 90%, achieved 80.0 %",
        "out (10.0 %): it", "with one layer pruned alone", "3 of 4 values reach the outputs",
        "lovely (+2.5), fine (+1)", "how often each expert is selected",
        "zeros in the outputs of rectifiers", "Confusion matrices", "tensorflow 2.21.0",
        "edgesparse deploy p.yaml --device pi",
        "name: p",
    ]:  # fmt: skip
        assert part in text, part
    # Three of all rows, a block's own, one training, one sensitivity, one picture.
    assert parts.tags.count("svg") == 7
    assert len(parts.ids) == len(set(parts.ids))
    for name, value in parts.attributes:
        if name in ("href", "xlink:href", "src"):
            assert value.startswith(("#", "data:")), value


def test_a_run_without_measurements_has_a_page():
    rows = [row.model_copy(update={"latency_ms": None, "speedup": None}) for row in run().rows]
    text = " ".join(Parts(html_text(run().model_copy(update={"rows": rows}))).text)
    assert "accuracy [%] against file size" in text
    assert "accuracy [%] against latency" not in text


def test_the_same_run_gives_the_same_page():
    assert html_text(run()) == html_text(run())


@pytest.mark.parametrize("nasty", [HOSTILE, *NASTY])
def test_page_escapes_texts_from_devices(nasty):
    for content in (results(nasty), run(device=nasty)):
        parts = Parts(html_text(content))
        assert parts.tags.count("script") == 1
        assert parts.tags.count("img") == 0
        names = {name for name, _ in parts.attributes}
        assert not {name for name in names if name.startswith("on")}
        assert not re.search(r"(?<!\.)\bhttp://(192|example)", " ".join(v or "" for n, v in
                             parts.attributes if n in ("href", "src", "style")))  # fmt: skip


def test_empty_run_has_a_page():
    parts = Parts(html_text(results("x", rows=[], devices=[], releases=[], notes=[], failures=[])))
    assert "svg" not in parts.tags


def test_names_that_begin_with_an_underscore_are_in_the_legend():
    text = html_text(run(variants=("_a", "_b", "torn")))
    assert "\u200b_a</text>" in text
    assert "\u200b_b</text>" in text


@pytest.mark.slow
@pytest.mark.full
def test_many_variants_stay_below_five_megabytes():
    names = [f"variant-{index}" for index in range(1000)]
    many = run(variants=names)
    training = many.provenance.trainings[0]
    trainings = [training.model_copy(update={"label": name}) for name in names]
    provenance = many.provenance.model_copy(update={"trainings": trainings})
    text = html_text(many.model_copy(update={"provenance": provenance}))
    assert len(text.encode()) < MAX_BYTES
    assert "more trainings are in results.json" in text


@pytest.mark.slow
def test_ten_thousand_variants_would_stay_below_five_megabytes():
    few, many = (
        len(html_text(table_of(*(row(f"v{n}", 1 + n / 1e4) for n in range(count)))).encode())
        for count in (600, 1000)
    )
    assert few + (many - few) / 400 * 9400 < MAX_BYTES


def test_matplotlib_and_jinja_load_only_for_a_page():
    code = (
        "import sys, edgesparse.report.page, edgesparse.cli.console;"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unwritable_page_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgesparseError, match="cannot write the page"):
        write_page(run(), tmp_path / "file" / "page.html")
