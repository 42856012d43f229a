"""The house: what lies where, and who may import whom."""

import ast
import subprocess

from tests.conftest import ROOT

ROOMS = [
    "cli", "report", "pipeline", "bench", "devices", "tflite", "sparsity", "models", "data", "spec",
]  # fmt: skip
PACKAGE = ROOT / "edgesparse"
VISIBLE = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock",
    "edgesparse", "pipelines", "devices", "tests",
}  # fmt: skip


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def rooms_of(file):
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "edgesparse" and len(parts) > 1 and parts[1] in ROOMS:
            yield parts[1]


def test_rooms_import_only_rooms_below():
    for index, room in enumerate(ROOMS):
        for file in (PACKAGE / room).glob("*.py"):
            above = {other for other in rooms_of(file) if ROOMS.index(other) < index}
            assert not above, f"{file.relative_to(ROOT)} imports {above}"


def test_the_report_knows_no_tensorflow_and_the_ground_floor_nothing_of_ours():
    for file in (PACKAGE / "report").glob("*.py"):
        assert not {"tensorflow", "asyncssh"} & {n.split(".")[0] for n in imports(file)}
    for file in (PACKAGE / "spec").glob("*.py"):
        assert set(rooms_of(file)) <= {"spec"}


def test_no_file_is_over_500_lines():
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 500, file


def test_nothing_else_is_visible_at_the_top():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {name.split("/")[0] for name in listed}
    assert {name for name in top if not name.startswith(".")} <= VISIBLE


def test_the_lock_has_hashes_and_no_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pinned = [line for line in lock.splitlines() if "==" in line and not line.startswith(" ")]
    assert pinned
    assert all(line.endswith("\\") for line in pinned)
    assert lock.count("--hash=sha256:") >= len(pinned)
