"""Lists names, messages and docstrings that break the project's vocabulary.

    python -m tests.tools.language commands/prediction cli

prints each offender below these packages as file:line: what is wrong. The words are those of
CONTRIBUTING.md; tests/test_language.py holds the packages to them.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "edgesparse"

NAMES = {
    "found", "one", "given", "known", "own", "place", "said", "told", "made", "asked", "wanted",
    "nobody", "somebody", "anybody",
}  # fmt: skip
"""Say nothing about what a value is; a noun of the domain does: device, layer, row, match."""

PARTS = {
    "bears", "speaks", "told", "said", "heard", "hearing", "lied", "carrying", "keeping",
    "watching", "settling", "upkeep", "ingredients", "foreseen", "nobody", "judged", "judging",
}  # fmt: skip
"""Not part of any name either: `as_told`, `_Heard`."""

IDIOMS = {
    r"\b(is|are|was|were) no (?!longer\b|more\b|other\b)": "X is not a Y, or: invalid Y",
    r"\bnot well\b": "failed",
    r"\bwhat cannot be\b": "invalid",
    r"\bbrings? nothing\b": "does not help",
    r"\b(was|were|been|is|are) told\b": "write what happened",
    r"\b(was|were|is|are) asked for\b": "requested",
    r"\bforeseen\b": "predicted",
    r"\bmay be (removed|made|left|pruned|used|taken)\b": "can be",
    r"\bas good as nothing\b": "negligible",
    r"\bgo together\b": "match",
    r"\bnobody\b(?!:)|\bsomebody\b|\banybody\b": "name who",
    r"\bgain(s|ed)? no time\b": "no speed-up",
    r"\bspeaks? for\b|\bbears?\b": "the field's word: attribution, sensitivity",
}

OPENINGS = re.compile(r"(What|Of|Whether|Which|The same|How|Where|Those|That|Whose|As) ")
"""Clauses in place of a verb or a noun, at the beginning of a docstring."""


def offenders(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and description of everything in `file` that breaks the vocabulary."""
    for part in file.stem.split("_"):
        if part in PARTS or file.stem in NAMES:
            yield 1, f"module name {file.stem}"
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        for name in _names(node):
            bare = name.strip("_").lower()
            if bare in NAMES or PARTS & set(re.split(r"_|(?<=[a-z])(?=[A-Z])", bare)):
                yield node.lineno, f"name {name}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for idiom, instead in IDIOMS.items():
                if match := re.search(idiom, node.value):
                    yield node.lineno, f'"{match.group()}": {instead}'
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if match := OPENINGS.match(text):
                line = getattr(node, "lineno", 1)
                yield line, f'docstring begins with "{match.group(1)}"; a verb or a noun'


def _names(node: ast.AST) -> list[str]:
    """The names that `node` itself introduces."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.alias) and node.asname:
        return [node.asname]
    return []


def main(packages: list[str]) -> None:
    for package in packages or ["."]:
        folder = PACKAGE / package
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
        for file in files:
            for line, what in sorted(offenders(file)):
                print(f"{file.relative_to(PACKAGE.parent)}:{line}: {what}")


if __name__ == "__main__":
    main(sys.argv[1:])
