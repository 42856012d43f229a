"""The delegate's answers are XNNPACK's, bit for bit, with every instruction set of this CPU."""

import re

import pytest
from ai_edge_litert.interpreter import Interpreter, load_delegate

from tests.conftest import require
from tests.tools import sanitized
from tests.tools.delegate_answers import OPTIONS, answers, first_difference, library_here, run
from tests.tools.delegate_fuzz import fuzz
from tests.tools.random_nodes import random_case

FLAGS = {"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx2": "avx2"}


def _instruction_sets():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        features = set(file.read().split())
    return ["portable", *(isa for isa, flag in FLAGS.items() if flag in features)]


ISAS = _instruction_sets()
SAMPLE, MORE, MANY = 150, 2_000, 10_000


def require_equal(outcome, cases):
    assert outcome.difference is None, outcome.difference
    assert outcome.cases == cases
    print(outcome)
    # A comparison of what was left to XNNPACK would say nothing.
    assert outcome.taken.total() > cases / 2
    assert not outcome.left
    assert outcome.alone < cases / 10


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_a_sample_of_nodes_and_chains(isa):
    require_equal(run(range(SAMPLE), isa, library_here()), SAMPLE)


@pytest.mark.slow
def test_a_sample_with_threads():
    require_equal(run(range(SAMPLE), "", library_here(), threads=3), SAMPLE)


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
def test_thousands_of_nodes_and_chains(isa):
    require_equal(run(range(MORE), isa, library_here()), MORE)


@pytest.mark.bench
@pytest.mark.parametrize("isa", ISAS)
def test_ten_thousand_nodes_and_chains(isa):
    """Those that come after the ones of every run; for a release."""
    require_equal(run(range(MORE, MANY), isa, library_here()), MANY - MORE)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    require(sanitized.has_compiler(), "g++ with its sanitizers")
    return sanitized.sanitized(tmp_path_factory.mktemp("sanitized"))


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
def test_sanitizers_find_nothing(checked, isa):
    environment = sanitized.environment()
    require_equal(run(range(500), isa, checked, threads=2, environment=environment), 500)


@pytest.mark.full
def test_sanitizers_find_what_is_wrong(tmp_path, monkeypatch):
    """A library that reads beyond its weights is caught."""
    require(sanitized.has_compiler(), "g++ with its sanitizers")
    sources = tmp_path / "src"
    sources.mkdir()
    for source in sanitized.SOURCES.iterdir():
        text = source.read_text()
        if source.name == "claim.cc":
            text = text.replace(_RIGHT, _RIGHT + _WRONG)
        (sources / source.name).write_text(text)
    monkeypatch.setattr(sanitized, "SOURCES", sources)
    library = sanitized.sanitized(tmp_path)
    outcome = run(range(3), "", library, environment=sanitized.environment())
    assert re.search(r"claim\.cc:\d+:\d+: runtime error|heap-buffer-overflow", outcome.difference)


_RIGHT = "const int code = registration->builtin_code;"
_WRONG = ' volatile char* end = (volatile char*)malloc(8); if (end[8]) return "";'


@pytest.mark.full
def test_damaged_files_do_not_crash(checked):
    counts, crashes = fuzz(range(1000), checked)
    assert not crashes, "\n".join(crashes)
    print(counts)
    assert counts["ran"] > 100


def test_several_interpreters_share_a_delegate():
    """One after another and at the same time: each has its own weights and buffers."""
    shared = load_delegate(str(library_here()), OPTIONS)
    interpreters = []
    for seed in range(3):
        content = random_case(seed).content
        ours = Interpreter(model_content=content, experimental_delegates=[shared])
        plain = Interpreter(model_content=content)
        for interpreter in (ours, plain):
            interpreter.allocate_tensors()
        interpreters.append((seed, ours, plain))
    for seed, ours, plain in interpreters:
        case = random_case(seed)
        assert first_difference("XNNPACK", answers(plain, case), answers(ours, case), 0) is None
