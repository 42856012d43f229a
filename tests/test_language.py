"""The project's vocabulary: names, messages and docstrings in the field's terms."""

import pytest

from tests.tools.language import PACKAGE, offenders

PARTS = sorted(
    path.name
    for path in PACKAGE.iterdir()
    if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
)


@pytest.mark.parametrize("part", PARTS)
def test_words(part):
    path = PACKAGE / part
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    broken = [
        f"{file.relative_to(PACKAGE)}:{line}: {what}"
        for file in files
        for line, what in offenders(file)
    ]
    assert not broken, "\n".join(broken)
