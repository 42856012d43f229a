"""Where instructions cannot be compared across number formats, no table does it."""

import yaml

from edgesparse.measure.instruction_counts import CHECKED, LIMIT, incomparable_formats
from edgesparse.measure.results import DeviceInfo, ReleaseInfo
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.report.table import block_cells, blocks, number_notes
from edgesparse.report.table_notes import release_line
from edgesparse.report.verdicts import ship_lines
from tests.conftest import ROOT
from tests.report.test_table import results, row


def rows(clock="instructions", second="int8", runtime="ai-edge-litert"):
    given = [("dense-f32", 2.0, "f32"), ("dense-int8", 1.5, second), ("sparse-f32", 1.0, "f32")]
    found = []
    for name, p50, numbers in given:
        variant = row(name, p50)
        kept = variant.score.model_copy(update={"drop": 0.0})
        update = {"clock": clock, "compute_dtype": numbers, "metrics": [kept],
                  "runtime": RuntimeInfo(name=runtime, version="1")}  # fmt: skip
        found.append(variant.model_copy(update=update))
    return found


def test_formats_are_apart_on_an_instruction_clock_that_nobody_checked():
    assert incomparable_formats(rows(), "Cortex-A72")
    assert incomparable_formats(rows(), "Raspberry Pi Zero 2, Cortex-A53")
    assert not incomparable_formats(rows(), "Cortex-A76")
    told = incomparable_formats(rows(runtime="tflite-runtime"), "Cortex-A76")
    assert told == f"{LIMIT} for tflite-runtime on this CPU"
    assert incomparable_formats([*rows(), *rows(runtime="tflite-runtime")], "Cortex-A76") == told
    assert not incomparable_formats(rows(clock="wall"), "Cortex-A72")
    assert not incomparable_formats(rows(second="f32"), "Cortex-A72")


def shown(cpu):
    device = DeviceInfo(name="pi", description="", machine="aarch64", cpu=cpu)
    found = results(*rows()).model_copy(update={"devices": [device]})
    (block,) = blocks(found)
    return found, block, block_cells(block, number_notes(found.rows))


def test_no_best_is_marked_across_formats_and_the_header_says_why():
    found, block, lines = shown("Cortex-A72")
    assert block.title.endswith(f"(simulated); {LIMIT} for ai-edge-litert on this CPU")
    assert not any(cell.best for cell in lines[2] if cell.text == "1.000")
    assert any(cell.best for line in lines for cell in line)  # The size, for one.
    assert ship_lines(found)[-1].text.endswith(f"; {LIMIT} for ai-edge-litert on this CPU")
    _, block, lines = shown("Cortex-A76")
    assert block.title.endswith("time = INSTRUCTION COUNT (simulated)")
    assert any(cell.best for cell in lines[2] if cell.text == "1.000")


def test_a_release_says_that_it_was_chosen_so():
    given = dict.fromkeys(("device", "pipeline", "variant", "runtime", "digest", "folder"), "x")
    info = ReleaseInfo(**given, previous=None, run_command=None, warning=f"chosen so: {LIMIT}")
    assert release_line(info).endswith(LIMIT)


def test_what_is_published_has_its_sources():
    published = yaml.safe_load((ROOT / "devices" / "published.yaml").read_text())
    for entry in published:
        assert entry["source"]
        assert all(value > 0 for value in entry["latency_ms"].values())
    assert {core for core, _ in CHECKED} <= {entry["cpu"] for entry in published}
