"""10 000 mutated YAML files: each is valid, or told with its places."""

from pathlib import Path

import pytest

from edgesparse.spec.errors import SpecError
from edgesparse.spec.reading.load import parse_device, parse_pipeline
from tests.conftest import ROOT
from tests.tools.fuzz import chances, mutated_text

PIPELINES = [path.read_text() for path in sorted((ROOT / "pipelines").glob("*.yaml"))]
DEVICES = [
    path.read_text()
    for path in sorted((ROOT / "devices").glob("*.yaml"))
    if "connect:" in path.read_text()
]
SCRAPS = [
    "", ":", "- ", "{", "}", "[", "]", "'", '"', "&a ", "*a", "!!python/name:os ", "${", "${X}",
    "\t", "\n", "  ", "#", "null", "0x_", "0b", "1_", ".inf", "nan", "1:1", "2001-01-01", "<<: ",
    "~", "|", ">", "%", "@", "`", "? ", "---\n", "\x00", "\ufeff", "é", "-1", "1e400", "= ",
    "!!binary x", "!!int x", "name: x\n", "sparsity: 3\n", "variants: {}\n", "9" * 5000,
    "0x" + "f" * 5000, "0b" + "1" * 20_000, "1" + ":59" * 1500, "1" + ":59" * 300 + ".5", "-" * 3,
    "${HOME}", "ref: a" + ".a" * 3000 + ":f", "ref: '\\0.py:f'", "ref: this:s", "\u202e", "\x1b",
]  # fmt: skip


@pytest.mark.slow
def test_mutated_files_never_show_a_traceback():
    """Anything goes in; a valid file or problems with line numbers come out."""
    valid = 0
    for chance in chances(10_000):
        pipeline = chance.random() < 0.7
        text = mutated_text(chance.choice(PIPELINES if pipeline else DEVICES), SCRAPS, chance)
        try:
            if pipeline:
                loaded = parse_pipeline(text, str(Path("pipelines/mutated.yaml")))
            else:
                loaded = parse_device(text, str(Path("devices/mutated.yaml")))
        except SpecError as error:
            assert error.problems
            lines = text.count("\n") + 2 + sum(text.count(c) for c in "\r\x85\u2028\u2029")
            for problem in error.problems:
                assert 1 <= problem.line <= lines
                assert problem.column >= 1
                assert problem.message
                assert len(problem.message) < 2000
        else:
            assert loaded.spec.name
            valid += 1
    assert 0 < valid < 10_000
