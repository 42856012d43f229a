import pytest

from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.reading.document import MAX_BYTES, parse_document, read_document


def problems(text: str, **environment: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_document(text, "f.yaml", environment)
    return [str(problem) for problem in caught.value.problems]


def test_values_and_their_positions():
    document = parse_document("a: 1\nb:\n  - x\n  - {c: 1e-3, d: 1.5, e: yes, f: null}\n", "f.yaml")
    assert document.value == {"a": 1, "b": ["x", {"c": "1e-3", "d": 1.5, "e": True, "f": None}]}
    assert document.values["b", 1, "d"] == (4, 18)
    assert document.keys["b",] == (2, 1)
    assert document.where(("b", 0, "not there")) == "f.yaml:3:5"


def test_duplicate_key_names_the_first():
    assert problems("a: 1\nb: 2\na: 3\n") == ["f.yaml:3:1: duplicate key 'a' (first on line 1)"]


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object:os.system x",
        "a: !!python/name:os.system",
        "a: !own [1]",
        "a: !!set {b: }",
    ],
)
def test_tags_are_refused(text):
    assert "unsupported tag" in problems(text)[0]


def test_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "aliases expand to more than" in problems("\n".join(lines))[0]


def test_alias_of_itself_is_refused():
    assert problems("a: &a [*a]") == ["f.yaml:1:8: recursive alias"] or (
        "recursive alias" in problems("a: &a [*a]")[0]
    )


def test_anchors_and_merge_keys_work():
    text = "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\n"
    assert parse_document(text, "f").value["more"] == {"x": 1, "y": 3}


def test_deep_nesting_is_refused_with_its_line():
    assert problems("a:\n " + "[" * 3000)[0].startswith("f.yaml:2:")


def test_large_file_is_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("a: " + "x" * MAX_BYTES)
    with pytest.raises(SpecError, match="larger than"):
        read_document(path)


def test_not_utf8_has_its_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: 1\nb: é\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin.yaml:2:4: not UTF-8"):
        read_document(path)


def test_missing_file_lists_its_neighbours(tmp_path):
    (tmp_path / "digits.yaml").touch()
    with pytest.raises(UsageError, match=r"no such file; files in that folder: digits.yaml"):
        read_document(tmp_path / "digit.yaml")


def test_variables():
    text = 'a: ${A:-8}\nb: "${B:-x}/y"\nc: $${A}\nd: ${A:-8}\n'
    assert parse_document(text, "f", {"B": "z"}).value == {
        "a": 8, "b": "z/y", "c": "${A}", "d": 8
    }  # fmt: skip
    assert parse_document(text, "f", {"A": "off"}).value["a"] is False
    assert problems("\na: ${NOT_SET}") == [
        "f.yaml:2:4: environment variable NOT_SET is not set; set it or write ${NOT_SET:-default}"
    ]


def test_a_quoted_variable_stays_text():
    assert parse_document("a: '${A}'", "f", {"A": "8"}).value == {"a": "8"}


@pytest.mark.parametrize("text", ["", "# only a comment", "- 1", "x", "a: 1\n---\nb: 2"])
def test_only_one_mapping_is_a_document(text):
    assert problems(text)


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20_000, "1" + ":59" * 3000,
     "9223372036854775808", "1" + ":59" * 300 + ".5", "0" + "7" * 8000],
)  # fmt: skip
def test_numbers_that_are_too_large_are_told(number):
    (line,) = problems(f"a: {number}")
    assert line.startswith("f.yaml:1:4: ")
    assert "invalid " in line or "is too large" in line
    assert len(line) < 200


def test_values_of_the_environment_are_not_repeated():
    """They may be passwords; what they are called says enough."""
    secret = "hunter2 'x\"\ty"
    for text in (
        "a: !!int '${PASS}'",
        "a: ${PASS}\na: ${PASS}",
        "${PASS}: 1\n${PASS}: 2",
        "- ${PASS}",
    ):
        for line in problems(text, PASS=secret):
            assert "hunter2" not in line


def test_bytes_in_the_environment_are_told():
    (line,) = problems("a: ${PASS}", PASS="\udcff\udcfe")
    assert line == "f.yaml:1:4: environment variable PASS is not valid UTF-8"
