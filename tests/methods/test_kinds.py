"""The documentation's table of layers is what the code does."""

import pytest

from edgesparse.docs import PAGES
from tests.methods.kinds import KINDS, SCHEMES, line

SOME = ("Conv2D with groups", "a layer of your own with a kernel", "tf.split, slicing")
MORE = (
    "BatchNormalization", "Conv3D", "Conv2DTranspose", "MultiHeadAttention", "SeparableConv1D",
)  # fmt: skip
"""These and the above are converted in every scheme."""


def rows():
    """The page's lines, by layer."""
    text = (PAGES / "reference" / "layers.md").read_text()
    part = text.partition("## Layers, steps and schemes")[2].partition("\n## ")[0]
    lines = [row.strip("| ").split(" | ") for row in part.splitlines() if row.startswith("| ")]
    return lines[0], {name: rest for name, *rest in lines[1:]}


def test_every_kind_has_its_line():
    head, lines = rows()
    assert head[3:-1] == list(SCHEMES)
    assert list(lines) == list(KINDS)


def test_f16_takes_what_f32_takes():
    """Its weights are those of f32, rounded: few kinds are converted to see it."""
    head, lines = rows()
    f32, f16 = head.index("f32") - 1, head.index("f16") - 1
    assert {name: row[f16] for name, row in lines.items()} == {
        name: row[f32] for name, row in lines.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SOME, *(pytest.param(k, marks=pytest.mark.full) for k in MORE)])
def test_each_line_is_what_the_code_does(name):
    assert rows()[1][name] == line(KINDS[name])


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in KINDS if name not in SOME + MORE])
def test_each_other_line_is_what_the_code_does(name):
    expected = rows()[1][name]
    del expected[2 + SCHEMES.index("f16")]
    assert expected == line(KINDS[name], [scheme for scheme in SCHEMES if scheme != "f16"])
