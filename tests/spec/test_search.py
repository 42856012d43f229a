"""What a search's template stands for, and what is said of one that is none."""

import pytest

from edgesparse.spec.errors import SpecError
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.spec.search import Search, fill_template
from tests.conftest import ROOT, TINY

SEARCH = """
search:
  objectives: [accuracy, bytes]
  variant:
    sparsify: {method: magnitude, sparsity: {range: [0.5, 0.9], step: 0.1}, epochs: 1}
    quantize: {choice: [f32, {scheme: int8, qat: {choice: [true, false]}}]}
"""


def holes(template):
    found = []
    fill_template(template, lambda hole: found.append(hole) or 0)
    return found


def test_holes_are_found_wherever_they_are_and_named_by_their_place():
    template = {
        "sparsify": [{"method": "magnitude", "sparsity": {"range": [0.5, 0.9]}}],
        "quantize": {"choice": ["f32", "int8"]},
        "seed": {"range": [1, 9], "step": 2},
    }
    found = {hole.path: hole for hole in holes(template)}
    assert set(found) == {"sparsify.0.sparsity", "quantize", "seed"}
    assert found["quantize"].options == ("f32", "int8")
    assert found["seed"].whole
    assert not found["sparsify.0.sparsity"].whole


def test_what_stands_in_an_option_belongs_to_it_alone():
    template = {"sparsify": {"choice": [{"a": {"range": [1, 2]}}, {"a": {"range": [5, 9]}}]}}
    paths = [[hole.path for hole in holes_of(template, place)] for place in range(2)]
    assert paths == [["sparsify", "sparsify[0].a"], ["sparsify", "sparsify[1].a"]]


def holes_of(template, place):
    found = []

    def choose(hole):
        found.append(hole)
        return place if hole.options else hole.low

    fill_template(template, choose)
    return found


@pytest.mark.parametrize(
    "wrong",
    [
        {"range": [0.9, 0.5]},
        {"range": [1]},
        {"range": "1-2"},
        {"range": [0, 1], "step": 0},
        {"range": [0, 1], "log": True},
        {"range": [0.1, 1.0], "log": True, "step": 0.1},
        {"range": [True, False]},
        {"range": [0, 1], "steps": 1},
        {"choice": []},
        {"choice": ["a"], "or": 1},
    ],
)
def test_what_is_no_hole_is_refused(wrong):
    with pytest.raises(ValueError, match=r"x: (a range is|a choice is|'log: true')"):
        fill_template({"x": wrong}, lambda hole: 0)


def test_examples_show_every_option():
    search = Search.model_validate(
        {"objectives": ["bytes"], "variant": {"quantize": {"choice": ["f32", "f16", "int8"]}}}
    )
    assert {one["quantize"] for one in search.examples()} == {"f32", "f16", "int8"}


def test_a_search_that_makes_variants_is_valid():
    assert parse_pipeline(TINY + SEARCH, str(ROOT / "tiny.yaml")).spec.search is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[0.5, 0.9]", "[0.5, 1.5]", "the template has invalid variants: variant.sparsify"),
        ("objectives: [accuracy", "objectives: [acuracy", "unknown metric 'acuracy'"),
        ("{scheme: int8,", "{scheme: f16,", "'qat: true' requires 'scheme: int8'"),
        ("{range: [0.5, 0.9], step: 0.1}", "{range: [0.9, 0.5]}", "a range is"),
        ("[accuracy, bytes]", "[bytes, bytes]", "duplicate objective"),
        ("  variant:", "  samples: 3\n  variant:", "unknown key 'samples'"),
    ],
)
def test_a_wrong_search_is_told_with_its_line(old, new, said):
    assert old in SEARCH
    with pytest.raises(SpecError) as caught:
        parse_pipeline(TINY + SEARCH.replace(old, new), str(ROOT / "tiny.yaml"))
    assert said in str(caught.value)
    lines = len(TINY.splitlines())
    assert all(problem.line > lines for problem in caught.value.problems)
