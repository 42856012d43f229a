"""The table of layers in pipelines/README.md is what the code does."""

import pytest

from tests.conftest import ROOT
from tests.sparsity.kinds import KINDS, SCHEMES, line


def rows():
    """The page's lines, by layer."""
    text = (ROOT / "pipelines" / "README.md").read_text()
    part = text.partition("### Layers, steps and schemes")[2].partition("\n### ")[0]
    lines = [row.strip("| ").split(" | ") for row in part.splitlines() if row.startswith("| ")]
    return lines[0], {name: rest for name, *rest in lines[1:]}


def test_every_kind_has_its_line():
    head, found = rows()
    assert head[3:-1] == list(SCHEMES)
    assert list(found) == list(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_line_is_what_the_code_does(name):
    assert rows()[1][name] == line(KINDS[name])
