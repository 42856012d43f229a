from dataclasses import replace

import pytest

from edgesparse.tflite.runtimes.compatibility import (
    KERNELS,
    RULES,
    Cell,
    Machine,
    Profile,
    SparsePath,
    Verdict,
    cells,
)

TFLITE = Machine("tflite-runtime", "2.14.0", "x86_64")
LITERT = Machine("ai-edge-litert", "2.1.6", "x86_64")
OLD_LITERT = Machine("ai-edge-litert", "1.4.0", "aarch64")
PI5 = Machine("ai-edge-litert", "2.1.6", "aarch64", frozenset({"asimddp", "asimdhp"}))


def test_every_cell_has_a_measured_verdict():
    for machine in (TFLITE, LITERT, OLD_LITERT, PI5):
        for cell in cells():
            verdict = Profile(machine).verdict(cell)
            assert verdict.runs or verdict.why
            assert "not measured" not in verdict.why
            assert (verdict.cost is not None) == (verdict.runs and cell.form in KERNELS)


def test_every_line_of_the_table_counts_somewhere():
    machines = (TFLITE, LITERT, OLD_LITERT, PI5, Machine("tflite-runtime", "2.14.0", "aarch64"))
    used = set()
    for machine in machines:
        for cell in cells():
            used.add(next((i for i, rule in enumerate(RULES) if rule.fits(machine, cell)), None))
    assert used >= set(range(len(RULES)))


@pytest.mark.parametrize(
    ("machine", "cell", "runs"),
    [
        (LITERT, Cell("FULLY_CONNECTED", "int8", "densify"), False),
        (OLD_LITERT, Cell("FULLY_CONNECTED", "int8", "densify"), True),
        (TFLITE, Cell("FULLY_CONNECTED", "int8-per-channel", "block-1x16"), False),
        (TFLITE, Cell("FULLY_CONNECTED", "dynamic-per-channel", "dense"), False),
        (LITERT, Cell("CONV_2D", "int8", "densify"), True),
        (LITERT, Cell("CONV_2D", "dynamic", "densify"), False),
    ],
)
def test_cells_that_run(machine, cell, runs):
    assert Profile(machine).verdict(cell).runs is runs


def test_a_kernel_pays_below_its_share():
    verdict = Verdict(True, cost=5.0)
    assert verdict.exploits(0.1)
    assert not verdict.exploits(0.3)
    assert not Verdict(True).exploits(0.0), "what is made dense is never faster"
    assert not Verdict(False, cost=1.0).exploits(0.1)


def test_a_cpus_features_count():
    cell = Cell("FULLY_CONNECTED", "int8", "block-1x16")
    with_products = Profile(PI5).verdict(cell).cost
    assert with_products > Profile(Machine("ai-edge-litert", "2.1.6", "aarch64")).verdict(cell).cost


def test_what_was_probed_comes_first():
    cell = Cell("FULLY_CONNECTED", "int8", "densify")
    profile = Profile(LITERT, {cell: Verdict(True)})
    assert profile.verdict(cell).runs
    assert profile.table("int8")[cell.name] is None
    assert Profile(LITERT).table("int8")[cell.name] == "refuses"
    assert not [name for name in profile.table("int8") if "f32" in name]


def test_a_probe_knows_better_where_zeros_in_convolutions_are_skipped():
    unknown = Machine("ai-edge-litert", "9.0", "riscv64")
    assert not Profile(unknown).sparse_path.exists
    assert Profile(unknown, path_gain=2.0).sparse_path == SparsePath(True, pixel_fails=True)
    assert not Profile(unknown, path_gain=1.02).sparse_path.exists
    assert "x86" in Profile(LITERT, path_gain=1.0).sparse_path.why
    assert Profile(PI5).sparse_path.exists
    assert Profile(PI5, path_gain=2.5).sparse_path == Profile(PI5).sparse_path
    for gain in (0.0, 1.1):
        assert "device's probe" in Profile(PI5, path_gain=gain).sparse_path.why


def test_an_odd_version_is_no_crash():
    machine = Machine("ai-edge-litert", "unknown", "riscv64")
    assert Profile(machine).verdict(Cell("CONV_2D", "f32", "densify")).runs


def test_half_precision_is_computed_where_the_cpu_has_it():
    assert Profile(PI5).half_precision.exists
    weaker = replace(PI5, features=frozenset({"asimd"}))
    assert "lacks half-precision" in Profile(weaker).half_precision.why
    assert "x86" in Profile(LITERT).half_precision.why
    # What a probe has seen counts.
    assert not Profile(PI5, half_gain=1.0).half_precision.exists
    assert Profile(LITERT, half_gain=1.9).half_precision.exists
    assert Profile(PI5, half_gain=1.9).half_precision == Profile(PI5).half_precision
