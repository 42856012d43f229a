"""Checks .pt2 files: torch.export.load evaluates text, unpickles objects and loads libraries.

What torch.export writes for a network of plain tensors passes; anything else is refused.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.text import clean

# Names below the archive's root folder; `extra` files and others are left out.
_READ = re.compile(
    r"(?:[^/]+/)?(?:archive_format|archive_version|byteorder|\.[^/]+(?:/[^/]+)?|models/model\.json"
    r"|data/(?:weights|constants)/[^/]+|data/sample_inputs/model\.pt)"
    r"|version|serialized_(?:exported_program\.json|(?:state_dict|constants)\.(?:json|pt)"
    r"|example_inputs\.pt)"
)
_CONFIG = re.compile(r"(?:^|/)data/(?:weights|constants)/.*\.json$", re.IGNORECASE)
_GRAPH = re.compile(r"(?:^|/)(?:models/model|serialized_exported_program)\.json$")
_TENSOR = re.compile(r"(?:weight|tensor)_\d+")

_NAME = re.compile(r"\w*")
_TEXT = re.compile(r"[\w.,<>=+*/@: -]*")
# aten.from_file and aten.save write files.
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(?:from_file|save)\.)(?:_?[a-zA-Z0-9]\w*|__i?(?:and|or|xor|lshift|rshift)__)"
    r"\.[a-zA-Z]\w*"
    r"|torch\.ops\.(?:prims|quantized_decomposed)\.[a-zA-Z]\w*\.[a-zA-Z]\w*"
    r"|torch\.ops\.higher_order\.(?:wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|_operator\.(?:eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift"
    r"|rshift|getitem)|math\.trunc|torch\.sym_[a-z]+"
)
_SYMBOL = re.compile(r"Symbol\('[a-z]+\d+'(?:, [a-z]+=(?:True|False))*\)")
_EXPRESSION = re.compile(r"[\w\s(),.+*/%<>=!-]*")
_WORD = re.compile(
    r"[a-z]+\d+|(?:Python)?Mod|Max|Min|(?:Floor|Ceil|Clean|IntTrue|FloatTrue)Div|ToFloat|Identity"
    r"|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|(?:Strict)?(?:Less|Greater)Than|And|Or|Not"
    r"|Add|Mul|Pow|Integer|Float|Rational|[tT]rue|[fF]alse"
)
_GUARD = re.compile(
    r"(?:L(?:\['\w+'\]|\[\d+\])+|\.size\(\)\[\d+\]|(?:Mod|Max|Min|FloorDiv|Eq|Ne|and|or|not)\b"
    r"|[\d\s()+*/%<>=!,-])*"
)
# Where an operator came from, which torch does not evaluate.
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node")
_SPEC_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_SPEC_CONTEXT = re.compile(r"""null|\[[\w\s",.-]*\]""")


def checked_copy(source: Path, target: Path) -> None:
    """Write a copy of a .pt2 file that has nothing but what was checked.

    torch reads archives by another library than Python, which can see other members in them; so it
    gets an archive that was written here.

    Raises:
        UsageError: the file is damaged, exported on a GPU, or has a part that can run code.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            _check(archive, source)
            with zipfile.ZipFile(target, "w") as copy:
                for member in archive.infolist():
                    if _READ.fullmatch(member.filename) is None:
                        continue
                    written = zipfile.ZipInfo(member.filename)
                    written.file_size = member.file_size  # Over 2 GB it needs another header.
                    with archive.open(member) as content, copy.open(written, "w") as part:
                        shutil.copyfileobj(content, part, 1 << 20)
    # A member that is encrypted is a RuntimeError; JSON that is nested too deeply, too.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise UsageError(f"{source} is damaged: {clean(str(error))[:200]}") from error


def _check(archive: zipfile.ZipFile, source: Path) -> None:
    seen: set[str] = set()
    for name in archive.namelist():
        path = f"/{name.lower()}"
        if path in seen:
            raise UsageError(f"{source} has two members {clean(name)}; export it again")
        seen.add(path)
        if "/data/aotinductor/" in path:
            raise _refused(source, "the compiled library", name)
        if "/models/" in path and not re.fullmatch(r"([^/]+/)?models/model\.json", name):
            raise _refused(source, "a second program", name)
        if _CONFIG.search(name):
            _check_config(json.loads(archive.read(name)), source)
        if _GRAPH.search(name):
            for key, value in _texts(json.loads(archive.read(name)), "", source):
                if not _is_plain(key, value):
                    raise _refused(source, key, value)


def _check_config(config: Any, source: Path) -> None:
    entries = config.get("config", {}) if isinstance(config, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise UsageError(f"{source} is damaged: its list of weights is not an object")
    for key, entry in entries.items():
        if entry.get("use_pickle") or not _TENSOR.fullmatch(str(entry.get("path_name"))):
            raise UsageError(
                f"{source}: {clean(key)} is pickled, and reading it can run any code; export a "
                "module whose weights and constants are plain tensors"
            )
        list(_texts(entry.get("tensor_meta"), "", source))


def _texts(value: Any, key: str, source: Path) -> Iterator[tuple[str, str]]:
    """Yield each text of a JSON value with the key that it lies under; keys have the key "key".

    Raises UsageError for a device other than the CPU.
    """
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key, source)
    elif isinstance(value, dict):
        device = value.get("type", "cpu")
        if key in ("device", "as_device") and device not in ("cpu", "meta"):
            raise UsageError(
                f"{source} was exported on a GPU ({clean(str(device))[:20]}); call model.cpu() "
                "before torch.export.export"
            )
        for name, item in value.items():
            yield "key", name
            yield from _texts(item, name, source)


def _is_plain(key: str, text: str) -> bool:
    """Return whether torch can read a text without running code of the file."""
    if key in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if key in ("name", "as_name", "forward_arg_names"):
        return _NAME.fullmatch(text) is not None
    if key == "expr_str":
        return _is_expression(text)
    if key == "guards_code":
        return _GUARD.fullmatch(text) is not None
    if key in ("in_spec", "out_spec"):
        return not text or _is_plain_spec(json.loads(text))
    return key in _NOTES or _TEXT.fullmatch(text) is not None


def _is_expression(text: str) -> bool:
    """Return whether a text, which sympy evaluates as Python, is arithmetic of sizes."""
    text = _SYMBOL.sub("s0", text)
    words = re.findall(r"[^\W\d]\w*", text)
    return (
        _EXPRESSION.fullmatch(text) is not None
        and re.search(r"\.\s*[^\W\d]", text) is None
        and all(map(_WORD.fullmatch, words))
    )


def _is_plain_spec(spec: Any) -> bool:
    """Return whether a pytree's description has containers of Python only; others are imported."""
    if isinstance(spec, list):
        return all(isinstance(item, int) or _is_plain_spec(item) for item in spec)
    return (
        isinstance(spec, dict)
        and spec.get("type") in _SPEC_TYPES
        and _SPEC_CONTEXT.fullmatch(str(spec.get("context") or "null")) is not None
        and _is_plain_spec(spec.get("children_spec", []))
    )


def _refused(source: Path, what: str, text: str) -> UsageError:
    return UsageError(
        f"{source} has {what} {clean(text)[:80]!r}, which can run any code; export the network "
        "again, of PyTorch's own operators and plain tensors"
    )
