"""Safe YAML with a line and a column for every value.

PyYAML's own constructor drops positions, keeps the last of two equal keys and follows aliases
without limit, so values are built here from its node tree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from yaml.constructor import SafeConstructor

from edgesparse.spec.errors import Problem, SpecError, UsageError
from edgesparse.spec.safe.text import without_credentials

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 200_000
MAX_INTEGER = 2**63
_MAX_MESSAGE = 600
_SECRET = 3
"""Values of environment variables from this length on are masked in messages; shorter ones would
mask ordinary text."""

Location = tuple[str | int, ...]
Position = tuple[int, int]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


@dataclass
class Document:
    """A parsed YAML file: its plain value, and the position of each part.

    `values` and `keys` map a location such as ("variants", "dense", "quantize") to the (line,
    column), counted from 1, of the value and of its key.
    """

    path: str
    folder: Path
    """Base of the file's references; absolute, so that it is valid in processes with another
    current folder."""
    value: Any = None
    values: dict[Location, Position] = field(default_factory=dict)
    keys: dict[Location, Position] = field(default_factory=dict)
    templates: dict[Location, str] = field(default_factory=dict)
    """Text in the file, by location, where a value came from the environment; for messages."""
    expanded: dict[str, str] = field(default_factory=dict)
    """Text in the file, by value."""
    variables: dict[str, str] = field(default_factory=dict)
    """References to environment variables, by value."""

    def position(self, location: Location, *, key: bool = False) -> Position:
        """Return the position of `location`, or of the nearest part around it in the file."""
        while True:
            first, second = (self.keys, self.values) if key else (self.values, self.keys)
            if location in first:
                return first[location]
            if location in second:
                return second[location]
            if not location:
                return (1, 1)
            location = location[:-1]

    def where(self, location: Location) -> str:
        line, column = self.position(location)
        return f"{self.path}:{line}:{column}"

    def problem(self, location: Location, message: str, *, key: bool = False) -> Problem:
        line, column = self.position(location, key=key)
        return Problem(self.path, line, column, shortened(self.masked(message)))

    def masked(self, text: str) -> str:
        """Return a text with values of environment variables, which can be passwords, replaced by
        their names, and without the credentials in URLs."""
        for value, name in self.variables.items():
            if len(value) >= _SECRET:
                for form in (value, repr(value)[1:-1], quote(value, safe="")):
                    text = text.replace(form, name)
        return without_credentials(text)

    def masked_in(self, value: Any) -> Any:
        """Return JSON-like data with every text masked."""
        if isinstance(value, str):
            return self.masked(value)
        if isinstance(value, Mapping):
            return {name: self.masked_in(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.masked_in(item) for item in value]
        return value


def read_document(path: Path, environment: Mapping[str, str] | None = None) -> Document:
    """Read and parse one YAML file.

    Raises:
        UsageError: the file is missing or unreadable.
        SpecError: it is not acceptable YAML; every mistake is listed.
    """
    name = str(path)
    try:
        if path.is_dir():
            raise UsageError(f"{name}: is a folder, not a YAML file")
        if path.exists() and not path.is_file():  # Reading a FIFO would block.
            raise UsageError(f"{name}: is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file{_neighbours(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{name}: cannot be read: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise SpecError([Problem(name, 1, 1, f"larger than {MAX_BYTES:,} bytes")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise SpecError([Problem(name, line, column, "not UTF-8 text")]) from None
    return parse_document(text, name, environment)


def parse_document(text: str, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Parse YAML text; `name` is what errors call the file. Raises SpecError."""
    try:
        _check_shape(text, name)
        nodes = list(_compose(text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"character {error.character!r} is not allowed in YAML"
        raise SpecError([Problem(name, line, column, message)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or error.context or "not YAML"
        raise SpecError([Problem(name, line, column, f"not valid YAML: {what}")]) from None
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise SpecError([Problem(name, 1, 1, f"not valid YAML: {first}")]) from None
    if not nodes:
        raise SpecError([Problem(name, 1, 1, "empty file; expected a mapping (key: value)")])
    if len(nodes) > 1:
        line, column = _mark(nodes[1])
        raise SpecError(
            [Problem(name, line, column, "second YAML document in the file; remove it")]
        )
    builder = _Builder(name, os.environ if environment is None else environment)
    document = Document(
        name,
        Path(name).absolute().parent.resolve(),
        None,
        builder.values,
        builder.keys,
        builder.templates,
        builder.expanded,
        builder.variables,
    )
    document.value = builder.build(nodes[0], ())
    if not isinstance(document.value, dict):
        builder.report(nodes[0], "expected a mapping (key: value)")
    if builder.problems:
        raise SpecError(builder.problems)
    return document


def _compose(text: str) -> Iterator[Any]:
    loader = _LOADER(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    finally:
        loader.dispose()


def _check_shape(text: str, name: str) -> None:
    """Refuse deep nesting before PyYAML's recursive composer sees it."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line, column = _mark(event)
                message = f"nested more than {MAX_DEPTH} levels deep"
                raise SpecError([Problem(name, line, column, message)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _mark(node: Any) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _TooLargeError(Exception):
    pass


class _Builder:
    """Builds values from nodes, and collects positions and problems."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.values: dict[Location, Position] = {}
        self.keys: dict[Location, Position] = {}
        self.templates: dict[Location, str] = {}
        self.expanded: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.open: set[int] = set()
        self.count = 0
        self.construct = SafeConstructor()
        self.resolver: Any = yaml.resolver.Resolver()

    def report(self, node: Any, message: str) -> None:
        line, column = _mark(node)
        self.problems.append(Problem(self.name, line, column, shortened(message)))

    def build(self, node: Any, location: Location) -> Any:
        try:
            return self._value(node, location)
        except _TooLargeError:
            return {}

    def _value(self, node: Any, location: Location) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            self.report(node, f"aliases expand to more than {MAX_NODES:,} values")
            raise _TooLargeError
        if id(node) in self.open:
            self.report(node, "recursive alias")
            return None
        self.values[location] = _mark(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location)
        expected = _TAG + ("map" if isinstance(node, yaml.MappingNode) else "seq")
        if node.tag != expected:
            self.report(node, f"unsupported tag {_shown(node.tag)}; use plain YAML")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, location)
            return [self._value(item, (*location, i)) for i, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: Any, location: Location) -> dict[str, Any]:
        items: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.report(key, "invalid key; expected plain text")
            elif key.tag == _TAG + "merge":
                self._merge(child, location, merged)
            elif not key.tag.startswith(_TAG) or key.tag == _TAG + "binary":
                self.report(key, f"unsupported tag {_shown(key.tag)}; use plain YAML")
            elif key.value in items:
                first = self.keys[(*location, key.value)][0]
                self.report(key, f"duplicate key {key.value!r} (first on line {first})")
            else:
                self.keys[(*location, key.value)] = _mark(key)
                items[key.value] = self._value(child, (*location, key.value))
        return {**merged, **items}

    def _merge(self, node: Any, location: Location, merged: dict[str, Any]) -> None:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self._value(source, location)
            if not isinstance(value, dict):
                self.report(source, "'<<' requires a mapping")
                continue
            for key, item in value.items():
                merged.setdefault(key, item)

    def _scalar(self, node: Any, location: Location) -> Any:
        tag, text = node.tag, node.value
        if "${" in text:
            text = self._expand(node)
            self.templates[location] = self.expanded[text] = node.value
            if not node.style:  # Plain, so that ${N:-8} is a number.
                tag = self.resolver.resolve(yaml.ScalarNode, text, (True, False))
        kind = tag.removeprefix(_TAG)
        if tag == kind or kind not in _SCALARS:
            self.report(node, f"unsupported tag {_shown(tag)}; use plain YAML")
            return None
        plain = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        try:
            value = _SCALARS[kind](self.construct, plain)
        except (ValueError, OverflowError, KeyError, IndexError, yaml.YAMLError):
            self.report(node, f"invalid {kind} {node.value[:40]!r}")
            return None
        # Python refuses to print much larger ones.
        if isinstance(value, int) and abs(value) >= MAX_INTEGER:
            self.report(node, f"number {node.value[:40]!r} is too large")
            return None
        return value

    def _expand(self, node: Any) -> str:
        def replace(match: re.Match[str]) -> str:
            if match.group(0) == "$${":
                return "${"
            variable, default = match.group(1), match.group(2)
            if variable is None:
                self.report(node, "'${' without a name; write ${NAME:-default}, or $${ for '${'")
                return ""
            value = self.environment.get(variable)
            if value and not _is_text(value):
                self.report(node, f"environment variable {variable} is not valid UTF-8")
                return ""
            if value:
                self.variables[value] = f"${{{variable}}}"
                return value
            if default is None:
                self.report(
                    node,
                    f"environment variable {variable} is not set; "
                    f"set it or write ${{{variable}:-default}}",
                )
                return ""
            return default

        return _VARIABLE.sub(replace, node.value)


def shortened(message: str) -> str:
    """Return a message cut to _MAX_MESSAGE characters."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


def _is_text(value: str) -> bool:
    """Return False for bytes that are not UTF-8: os.environ has them as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(_: SafeConstructor, node: yaml.ScalarNode) -> str:
    return str(node.value)


_SCALARS: dict[str, Any] = {
    "null": SafeConstructor.construct_yaml_null,
    "bool": SafeConstructor.construct_yaml_bool,
    "int": SafeConstructor.construct_yaml_int,
    "float": SafeConstructor.construct_yaml_float,
    "str": _text,
    # Dates and a bare "=" or "<<" are text here: no key takes a date.
    "timestamp": _text,
    "value": _text,
    "merge": _text,
}


def _shown(tag: str) -> str:
    return repr(tag.replace(_TAG, "!!")[:60])


def _neighbours(path: Path) -> str:
    try:
        names = sorted(p.name for p in path.parent.glob("*.yaml"))[:12]
    except OSError:
        return ""
    return f"; files in that folder: {', '.join(names)}" if names else ""
