"""What results say of how variants were made, and the page that every run leaves."""

import json

import pytest

from tests.conftest import HERE, TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_store")]


def test_a_run_keeps_how_its_variants_were_made_and_leaves_a_page(cli, tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    auto = "{method: magnitude, sparsity: auto, max_accuracy_drop: 0.2, epochs: 1}"
    text = TINY.replace("benchmark:", f"  auto-f32: {{sparsify: {auto}}}\nbenchmark:")
    (tmp_path / "tiny.yaml").write_text(text)
    done = cli("deploy", "tiny.yaml", "--device", "here", "--quick", "--json")
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    found = json.loads(done.stdout)
    made = found["provenance"]
    labels = [one["label"] for one in made["trainings"]]
    assert labels == ["train", "sparsify sparse-f32", "sparsify auto-f32"]
    assert all("val_loss" in one["history"] for one in made["trainings"])
    layers = {one["name"]: one for one in made["layers"]["sparse-f32"]}
    assert layers["dense_1"]["target"] == 0.5
    assert layers["dense_1"]["achieved"] == pytest.approx(0.5, abs=0.05)
    (entry,) = made["sensitivities"]
    assert (entry["metric"], entry["unit"], entry["variants"]) == ("accuracy", "%", ["auto-f32"])
    assert set(entry["layers"]) == set(layers)
    (seen,) = made["inputs"]["dense-f32"]
    assert seen["shape"] == [8, 8, 1]
    assert seen["n_connected"] == seen["n_values"] == 64
    assert sorted(seen["attribution"]) == sorted(made["class_names"]) == [str(n) for n in range(10)]
    assert max(max(map(abs, values)) for values in seen["attribution"].values()) == 99
    sparse = next(row for row in found["rows"] if row["variant"] == "sparse-f32")
    assert [one["name"] for one in sparse["weights"]]
    assert len(sparse["latency_ms"]["by_round"]) == 2
    assert found["command"] == "edgesparse deploy tiny.yaml --device here --quick"
    assert found["pipeline_source"] == text.split("\n")
    page = tmp_path / ".edgesparse" / "runs" / found["run"] / "page.html"
    assert f"page: {page.relative_to(tmp_path)}" in done.stderr
    again = cli("report", "--html", "-o", "again.html")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.html").read_text() == page.read_text()
    wrong = cli("report", "-o", "page.html")
    assert wrong.returncode == 2
    assert "-o needs --html" in wrong.stderr
