"""Every figure in the page's tables is the one in results.json, at the same place."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from edgesparse.measure.training_details import LayerSparsity
from edgesparse.report.page import html_text
from tests.conftest import HERE, TINY
from tests.report.page.sample_run import run

NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "k": 1e3, "M": 1e6, "%": 0.01}


class Tables(HTMLParser):
    """By section its tables, each as lines of cells; and all text of the section."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.texts, self.section, self.cell = {}, {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "section":
            self.section = dict(attrs)["id"]
        elif tag == "table":
            self.tables.setdefault(self.section, []).append([])
        elif tag == "tr":
            self.tables[self.section][-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[self.section][-1][-1].append(" ".join(self.cell.split()).rstrip("*"))
            self.cell = None

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + data
        if self.cell is not None:
            self.cell += data


def same(text, *values):
    """Check that the numbers in a text are `values`, to the precision of their digits."""
    plain = re.sub(r"(?<=\d)x", "", re.sub(r"(?<=\d)-(?=\d)", " ", text))
    numbers = list(NUMBER.finditer(plain))
    assert len(numbers) == len(values), (text, values)
    for number, value in zip(numbers, values, strict=True):
        unit = UNITS.get(
            plain[number.end() :].split(" ")[0] or plain[number.end() :].strip()[:2].strip(), 1
        )
        digits = number.group().replace(",", "")
        off = 0.51 * 10.0 ** -len(digits.partition(".")[2])
        assert abs(float(digits) - value / unit) <= max(off, 0.0051 * abs(value / unit)), (
            text,
            value,
        )
    return True


def check_rows(table, rows):
    head, *lines = table
    shown = {
        re.split(r" (?:[\[(]|ship$)", line[0])[0]: dict(zip(head, line, strict=True))
        for line in lines
    }
    for row in rows:
        cells = shown[row["variant"]]
        if row["status"] == "failed":
            assert "FAILED" in cells.values()
            continue
        model, latency, speedup = row["model"], row["latency_ms"], row["speedup"]
        score = row["metrics"][0]
        value = score["host"] if score["device"] is None else score["device"]
        expected = {
            "size": [model["bytes"]], "p50 ms": [latency["p50"]], "p90 ms": [latency["p90"]],
            "p50 95 % CI": latency["ci95"], "speed-up": [speedup["ratio"]],
            "95 % CI": speedup["ci95"], "RAM MB": [row["peak_rss_bytes"] / 1e6],
            "acc %": [100 * value], "MACs": [model["macs"]],
        }  # fmt: skip
        for name, values in expected.items():
            assert name == "MACs" or name in cells
            if name in cells and None not in values:
                same(cells[name], *values)
        reached = cells["zeros %"].split("->")[-1]
        same(reached, 100 * model["sparsity"])
        if "->" in cells["zeros %"]:
            same(cells["zeros %"].split("->")[0], 100 * row["coverage"]["target"])
        if score["drop"] is not None:
            same(cells["drop"].split("±")[0], 100 * score["drop"])


def check_layers(table, layers):
    head, *lines = table
    assert head[2:] == list(layers)
    for name, size, *cells in lines:
        variants = [next((o for o in v if o["name"] == name), None) for v in layers.values()]
        same(size, max(layer["size_before"] or layer["size"] for layer in variants if layer))
        for cell, layer in zip(cells, variants, strict=True):
            if layer is None:
                assert cell == "dense"
                continue
            share, *more = cell.split(", ")
            same(share.partition("%")[0] + "%", layer["achieved"])
            targets = [part for part in more if part.startswith("target")]
            left = [part for part in more if part.endswith("left")]
            assert len(targets) + len(left) == len(more)
            if layer["target"] and abs(layer["target"] - layer["achieved"]) > 0.01:
                same(targets[0], layer["target"])
            else:
                assert not targets
            if left:
                same(left[0], layer["size"])
            else:
                same(size, layer["size"])


def is_shipped(row, page):
    title = re.escape(f"{row['variant']} ({row['runtime']['name']})")
    return re.search(rf"<summary>{title}[^<]* <span", page) is not None


def check_model(table, row, pruned):
    """Every operator but those that decode weights, in order, with the figures of the file."""
    targets = {layer["name"]: layer["target"] for layer in pruned if layer["pattern"] != "channels"}
    layers = [layer for layer in row["layers"] if layer["operator"] != "DENSIFY"]
    layers = [layer for layer in layers if layer["storage"] != "decoder"]
    for line, layer in zip(table[1:], layers, strict=True):
        name, weights, zeros, macs, *times, storage, runs_by, pays = line
        if times:
            assert bool(times[0]) == bool(layer["time_ms"])
        if times and times[0]:
            same(times[0], layer["time_ms"])
        assert name == f"{layer['name']} {layer['operator']}"
        assert runs_by.split(":")[0] == ("edgesparse" if layer["taken"] else "xnnpack")
        if not layer["weights"]:
            assert (weights, zeros, storage, pays) == ("", "", "", "")
            continue
        same(weights, layer["weights"])
        share, target = layer["zeros"] / layer["weights"], targets.get(layer["name"], 0)
        same(zeros, share, *([target] if target and abs(target - share) > 0.01 else []))
        assert bool(macs) == bool(layer["macs"])
        if macs:
            same(macs, layer["macs"])
        sizes = dict.fromkeys((layer["dense_bytes"], layer["stored_bytes"]))
        same(storage.split(", ")[1], *sizes)
        if share >= 0.05:
            assert pays


def check_charts(rows, page):
    """Each row is in the charts of all rows, with its latency, metric and size."""
    tooltips = [unescape(text) for text in re.findall(r"<title>([^<]*)", page)]
    for row in rows:
        start = f"{row['variant']}, {row['runtime']['name']}: "
        latency, metric, size = (t.removeprefix(start) for t in tooltips if t.startswith(start))
        score = row["metrics"][0]
        value = score["host"] if score["device"] is None else score["device"]
        same(latency.split(";")[0], row["latency_ms"]["p50"])
        same(metric, row["latency_ms"]["p50"], value)
        same(size, row["model"]["bytes"], value)


def check(results, page):
    tables, rows = Tables(page), results["rows"]
    ok = [row for row in rows if row["status"] == "ok"]
    (table,) = tables.tables["tables"]
    check_rows(table, rows)
    check_charts(ok, page)
    if results["provenance"]["layers"]:
        check_layers(tables.tables["layers"][0], results["provenance"]["layers"])
    for line, row in zip(tables.tables.get("gaps", [[]])[0][1:], ok, strict=False):
        trained, keras = row["metrics"][0]["keras_train"], row["metrics"][0]["keras"]
        same(" ".join(line[2:]), 100 * trained, 100 * keras, 100 * (trained - keras))
    shown = tables.tables.get("models", [])
    views = [row for row in ok if row["layers"]]
    assert len(shown) == len(views)
    for table, row in zip(shown, sorted(views, key=lambda r: not is_shipped(r, page)), strict=True):
        check_model(table, row, results["provenance"]["layers"].get(row["variant"], []))
    for row in ok:
        done = row["coverage"]
        if done is not None:
            line = f"{row['variant']}: target {done['target']:.0%}, achieved {done['achieved']:.1%}"
            assert line.replace("%", "") in tables.texts["layers"].replace(" %", "").replace(
                "%", ""
            )
    return tables


def test_figures_of_every_kind_are_those_of_the_results():
    channels = [
        LayerSparsity(name="dense_1", pattern="channels", size=250_000, target=0.0, achieved=0.5,
                   size_before=1_000_000),
        LayerSparsity(name="out", pattern="channels", size=500, target=0.5, achieved=0.0,
                   size_before=1000),
    ]  # fmt: skip
    results = run()
    layers = {**results.provenance.layers, "dense-f32": channels}
    results = results.model_copy(
        update={"provenance": results.provenance.model_copy(update={"layers": layers})}
    )
    rows = json.loads(results.model_dump_json())
    tables = check(rows, html_text(results))
    (cells,) = [line for line in tables.tables["layers"][0] if line[0] == "dense_1"]
    assert cells[1:] == ["1,000,000", *2 * ["80.0 % block-1x16, target 90%"],
                         "50.0 % channels, 250,000 weights left"]  # fmt: skip
    assert tables.tables["confusions"][0][1:] == [["cat", "9", "1"], ["dog", "3", "7"]]
    assert "0: 50.0 %" in tables.texts["activity"]
    assert tables.tables["activity"][0][1][1:] == ["75.0 %"] * 3
    assert "3 of 4 values reach the outputs (75.0%)" in tables.texts["inputs"]


@pytest.mark.slow
def test_figures_of_a_real_run_are_those_of_its_results(tmp_path, cli, shared_store):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    variants = (
        "  channels-int8: {sparsify: {method: channels, macs: 0.6, epochs: 1}, quantize: int8}\n"
        "  both-f32:\n    sparsify:\n      - {method: channels, ratio: 0.5, epochs: 1}\n"
        "      - {method: magnitude, sparsity: 0.5, epochs: 1}\n"
    )
    (tmp_path / "p.yaml").write_text(TINY.replace("benchmark:", f"{variants}benchmark:"))
    done = cli("deploy", "p.yaml", "--device", "here")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(".edgesparse/runs/*/results.json")
    results = json.loads(path.read_text())
    check(results, path.with_name("page.html").read_text())
    (wide,) = [
        o for o in results["provenance"]["layers"]["channels-int8"] if o["name"].endswith("1")
    ]
    assert wide["achieved"] > 0.3
    assert wide["size"] == pytest.approx((1 - wide["achieved"]) * wide["size_before"], abs=1)
