"""The layout: which package holds what, and which may import which."""

import ast
import re
import subprocess
from collections import Counter
from functools import cache

from tests.conftest import ROOT

PACKAGE = ROOT / "edgesparse"
PACKAGES = [
    "cli", "report", "project", "commands", "graph", "stages", "measure", "devices", "tflite",
    "delegate", "methods", "tasks", "models", "layers", "data", "docs", "spec",
]  # fmt: skip
"""From top to bottom: a package imports those below it."""
LINES = 400
# One file, since it is copied to a device whole and must run there alone.
LONGER = {"devices/ondevice/agent.py": 710}
FILES = 12
VISIBLE = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock",
    "edgesparse", "pipelines", "devices", "tests",
}  # fmt: skip


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def names_in(tree):
    """Everything that is imported, wherever it stands: at the top, in a function, for types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports name the whole module"
            for alias in node.names:
                yield node.module, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.name


@cache
def parsed(file):
    return ast.parse(file.read_text())


@cache
def imports():
    """module -> the modules of ours that it imports, by what is written in it."""
    result = {}
    for module, file in MODULES.items():
        imported = set()
        for package, name in names_in(parsed(file)):
            # `from edgesparse.stages import train` means the file; a function there, the package.
            target = name if name in MODULES else package
            # Everybody may ask the package for its version; it is a door, and no package.
            if target in MODULES and target != module and target != "edgesparse":
                imported.add(target)
        result[module] = imported
    return result


def package_of(module):
    """The folder that a module lies in."""
    file = MODULES[module]
    return ".".join(file.parent.relative_to(ROOT).parts)


def circles(arrows):
    """Groups of nodes that reach one another (Tarjan 1972), each sorted."""
    index, low, stack, result = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                result.append(sorted(group))

    for node in arrows:
        if node not in index:
            visit(node)
    return result


def test_the_search_for_circles_finds_them():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_arrow_goes_up():
    """cli over report over ... over spec."""
    count = Counter()
    for module, imported in imports().items():
        if module.count(".") == 0 or module == "edgesparse.__main__":
            continue
        here = module.split(".")[1]
        for other in imported:
            there = other.split(".")[1]
            assert PACKAGES.index(there) >= PACKAGES.index(here), f"{module} imports {other}"
            count["across" if there != here else "inside"] += 1
    print(f"\n{len(MODULES)} modules, {count['across']} imports of lower packages, none of higher")
    print(f"{count['inside']} imports within a package")
    assert count["across"] > 100


def test_files_import_one_another_in_no_circle():
    assert circles(imports()) == []


def test_packages_import_one_another_in_no_circle():
    """Packages within packages, too: devices/agent and devices/transport, say."""
    packages = {package_of(module): set() for module in MODULES}
    for module, imported in imports().items():
        packages[package_of(module)] |= {package_of(other) for other in imported} - {
            package_of(module)
        }
    # A package's __init__ holds what all of it shares (data's Dataset, models' build).
    packages.pop("edgesparse")
    arrows = {package: imported & packages.keys() for package, imported in packages.items()}
    print(f"\n{len(packages)} packages, {sum(map(len, arrows.values()))} arrows, no circle")
    assert circles(arrows) == []


def test_nothing_imports_the_main_program():
    users = [m for m, imported in imports().items() if "edgesparse.cli.main" in imported]
    assert users == ["edgesparse.__main__"]


def test_one_place_opens_what_commands_work_with():
    """A command takes a Project; none makes a store, processes or connections by itself."""
    owners = {
        "Workspace": {"commands/fleet/resources.py"},
        "DaskCluster": {"commands/fleet/resources.py"},
        "Connections": {"commands/fleet/resources.py"},
        "open_target": {"commands/fleet/parallel.py"},
        "connected": {"commands/fleet/resources.py"},
        # A Dask worker has processes of its imported, on its machine.
        "Workers": {"commands/fleet/resources.py", "graph/execution/cluster.py"},
    }
    callers = {name: set() for name in owners}
    for file in MODULES.values():
        path = str(file.relative_to(PACKAGE)) if file.is_relative_to(PACKAGE) else file.name
        if path.startswith("devices/ondevice/"):
            continue  # Copied to devices, where nothing of ours is.
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                callers.get(node.func.id, set()).add(path)
    assert callers == owners


def test_the_ground_floor_and_the_report_are_light():
    heavy = {"tensorflow", "tensorflow_model_optimization", "numpy", "rich", "click", "matplotlib"}
    for package, allowed in (("spec", {"yaml", "pydantic"}), ("report", {"rich"})):
        for file in (PACKAGE / package).rglob("*.py"):
            if file.parent.name == "page":  # Loaded when a page is made only.
                allowed = {"matplotlib"}
            result = {name.split(".")[0] for _, name in names_in(parsed(file))}
            assert not result & (heavy - allowed), f"{file} imports {result & heavy}"


def test_a_room_has_at_most_a_dozen_files():
    counts = Counter(file.parent.relative_to(ROOT) for file in MODULES.values())
    crowded = {str(package): count for package, count in counts.items() if count > FILES}
    assert crowded == {}


def test_files_fit_in_a_head():
    for file in MODULES.values():
        limit = LONGER.get(str(file.relative_to(PACKAGE)), LINES)
        count = len(file.read_text().splitlines())
        assert count <= limit, f"{file.relative_to(ROOT)} has {count} lines"


def test_every_module_says_what_it_is_for():
    for module, file in MODULES.items():
        assert ast.get_docstring(parsed(file)), f"{module} has no docstring"


def map_sections():
    """folder -> (names that its lines are about, all names in its lines), as the map has them."""
    sections = {}
    for part in re.split(r"(?m)^##", (PACKAGE / "README.md").read_text())[1:]:
        head, _, text = part.partition("\n")
        if folder := re.match(r"#? `([\w/]+)/`", head):
            subjects = " ".join(re.findall(r"(?m)^- (.+?)(?::|$)", text))
            sections[folder[1].removeprefix("edgesparse")] = tuple(
                set(re.findall(r"`([\w.]+)`", names)) for names in (subjects, text)
            )
    return sections


def test_the_map_names_every_module_and_no_other():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PACKAGE, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    files = {file for file in listed if (PACKAGE / file).exists() and file != "README.md"}
    sections, missing = map_sections(), []
    for file in sorted(files):
        folder, _, name = file.rpartition("/")
        if folder.startswith("docs/pages") or name.endswith(".schema.json"):
            continue
        is_door = name == "__init__.py" and len(parsed(PACKAGE / file).body) == 1
        if not is_door and name.removesuffix(".py") not in sections.get(folder, ((), ()))[1]:
            missing.append(file)
    assert missing == [], "add a line to edgesparse/README.md"
    for folder, (subjects, _) in sections.items():
        known = {file.removeprefix(f"{folder}/").removesuffix(".py") for file in files}
        assert subjects <= known, f"the map's {folder}/ has no {subjects - known}"


def test_tests_mirror_the_packages():
    packages = {
        package.relative_to(PACKAGE)
        for package in PACKAGE.rglob("*")
        if (package / "__init__.py").exists()
    }
    kept = {
        package.relative_to(ROOT / "tests")
        for package in (ROOT / "tests").rglob("*")
        if package.is_dir()
    }
    missing = {str(package) for package in packages} - {str(package) for package in kept}
    assert missing == set()


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
