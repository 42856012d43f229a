"""Text from outside does nothing but be read."""

import json
import unicodedata

import pytest

from edgesparse.spec.safe.text import clean, clean_all, clean_lines, listed, outside_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Cortex-A76, 4 µm, größe, 模型, 🍓", "Cortex-A76, 4 µm, größe, 模型, 🍓"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]52;c;cm0gLXJm\x07", "\\x1b]52;c;cm0gLXJm\\x07"),
        ("a\x1b[2J\x1b[31mb", "a\\x1b[2J\\x1b[31mb"),
        ("\x9b31m \x9d0;x\x9c", "\\x9b31m \\x9d0;x\\x9c"),
        ("over\rwritten\b\b\x7f\0", "over\\x0dwritten\\x08\\x08\\x7f\\x00"),
        ("a\nb\tc", "a b c"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("\u202etxt.exe\u2066 \u200b\ufeff", "\\u202etxt.exe\\u2066 \\u200b\\ufeff"),
        ("\udcff\U000e0041\U0010ffff\ue000", "\\udcff\\U000e0041\\U0010ffff\\ue000"),
        ("Z" + "\u0301" * 50, "Z" + "\u0301" * 4),
    ],
)
def test_what_acts_is_shown_as_its_escape(text, shown):
    assert clean(text) == shown
    assert clean(shown) == shown


def test_no_character_does_anything():
    every = "".join(map(chr, range(0x110000)))
    left = {unicodedata.category(character) for character in clean(every)}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_a_limit_is_kept():
    assert clean("\x1b" * 100, 10) == "\\x1b\\x1b\\x"
    assert len(clean("é" * 10**6, 300)) == 300
    assert clean_lines("a\x1b\nb") == "a\\x1b\nb"


def test_documents_are_cleaned_through():
    assert clean_all({"a\x1b": ["\x1b", {"b": "\x07"}], "n": 3, "t": (None, "\x00")}) == {
        "a\\x1b": ["\\x1b", {"b": "\\x07"}], "n": 3, "t": (None, "\\x00"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": ' * 50_000, "9" * 5000, "[" + "1," * 10**6, '"\\ud8"']
)
def test_what_is_no_json_is_none(text):
    assert outside_json(text) is None


def test_json_from_outside_is_harmless():
    assert outside_json(json.dumps({"error": "\x1b[2J"})) == {"error": "\\x1b[2J"}
    assert outside_json('{"a": 1}', limit=3) is None


def test_long_lists_are_cut_and_counted():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert listed(["a: x", "b: y", "c: z"], 2, "; ") == "a: x; b: y; and 1 more"
