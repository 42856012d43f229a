"""Every example of the READMEs and the documentation: YAML is valid, Python uses names that exist,
commands and options exist, links lead somewhere."""

import ast
import importlib
import json
import re
import shlex

import click
import pytest

from edgesparse.cli.main import main
from edgesparse.docs import PAGES
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.reading.load import load_any, load_pipeline
from edgesparse.spec.reading.schema import schema_text
from tests.conftest import ROOT, run_cli
from tests.tools.docs_tables import renewed
from tests.tools.documents import (
    DOCUMENTS,
    blocks,
    commands,
    lines,
    links,
    mentions,
    name_of,
    programs,
)

SET_IN_SHELL = re.compile(r"^([A-Z_]+=\S+ )+")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def per_document(function):
    """Parametrize over what a document has, with its name in the test's id."""
    return [
        pytest.param(value, id=f"{name_of(document)}-{i}")
        for document in DOCUMENTS
        for i, value in enumerate(function(document))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with every Python file of the examples, and files that stand for a user's."""
    project = tmp_path_factory.mktemp("examples")
    folder = project / "pipelines"
    for path in (folder, project / "images"):
        path.mkdir()
    for name, text in programs().items():
        (folder / name).write_text(text)
    for path in (
        project / "mine.keras",
        folder / "mine.keras",
        folder / "mine.npz",
        folder / "w.pt",
    ):
        path.touch()
    return folder


def test_there_are_examples():
    assert len(DOCUMENTS) >= 30
    assert len(commands()) >= 8
    assert len(programs()) >= 5


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("text", per_document(lambda document: blocks(document, "yaml")))
def test_every_yaml_file_is_valid(text, folder):
    path = folder / "example.yaml"
    path.write_text(text)
    load_any(path)


@pytest.mark.parametrize("text", per_document(lambda document: blocks(document, "python")))
def test_every_program_compiles_and_its_names_exist(text):
    """Those of edgesparse; `import edgesparse as es` and what is called on it, too."""
    tree = ast.parse(text)
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {
                alias.asname or alias.name: alias.name
                for alias in node.names
                if alias.name.split(".")[0] == "edgesparse"
            }
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "edgesparse":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id)
            assert module is None or hasattr(importlib.import_module(module), node.attr)


def check_command(line):
    """Follow a command line through click's groups, and parse its options."""
    words = shlex.split(SET_IN_SHELL.sub("", line).split(" | ")[0].removesuffix("&"))
    if words[0].startswith("make"):
        targets = [word for word in words[1:] if "=" not in word]
        assert set(targets) <= TARGETS, line
        return
    if words[0].rpartition("/")[2] != "edgesparse":
        return
    command, context = main, click.Context(main)
    words = words[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"{line}: no command {name}"
        context = click.Context(command, parent=context)
    options = command.make_parser(context)
    options.parse_args(list(words))


@pytest.mark.parametrize(
    "line",
    per_document(lambda page: [*lines(page, "sh"), *lines(page, "console"), *mentions(page)]),
)
def test_every_command_and_option_exists(line):
    check_command(line)


def test_wrong_commands_are_noticed():
    with pytest.raises(click.NoSuchOption):
        check_command("edgesparse deploy p.yaml --nothing")
    with pytest.raises(AssertionError):
        check_command("edgesparse device nothing")
    with pytest.raises(AssertionError):
        check_command("make nothing")


@pytest.mark.parametrize("document", [pytest.param(d, id=name_of(d)) for d in DOCUMENTS])
def test_every_link_leads_somewhere(document):
    for link in links(document):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings
            }
            assert anchor in slugs, link


@pytest.mark.parametrize("page", [pytest.param(d, id=name_of(d)) for d in DOCUMENTS])
def test_tables_of_keys_are_those_of_the_code(page):
    assert renewed(page.read_text()) == page.read_text(), "run 'make schemas'"


@pytest.mark.parametrize("kind", ["pipeline", "device"])
def test_every_key_is_documented(kind):
    text = "\n".join(page.read_text() for page in PAGES.rglob("*.md"))
    schema = json.loads(schema_text(kind))
    for model in [schema, *schema["$defs"].values()]:
        for key in model.get("properties", {}):
            assert re.search(rf"[`{{\[, .]{key}[`}}\],:]", text), f"{model.get('title')}: {key}"


@pytest.mark.slow
def test_the_method_of_the_tutorial_prunes(folder):
    page = PAGES / "tutorials" / "plugin.md"
    (text,) = blocks(page, "yaml")
    (folder / "lottery.yaml").write_text(text)
    done = run_cli("run", "lottery.yaml", "--variant", "lottery-f32", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = {row.variant: row for row in Workspace(folder).results().rows}
    assert rows["lottery-f32"].model.sparsity == pytest.approx(0.5, abs=0.05)
    assert rows["dense-f32"].model.sparsity < 0.1


def test_the_own_parts_do_what_their_pipeline_promises(folder):
    from edgesparse import data, models

    (text,) = (t for page in DOCUMENTS for t in blocks(page, "yaml") if "name: own-parts" in t)
    path = folder / "own-parts.yaml"
    path.write_text(text)
    loaded = load_pipeline(path)
    assert data.load(loaded.spec.data, folder).input_shape == (32,)
    assert models.build(loaded.spec.model, folder).output_shape == (None, 2)
