"""PyTorch networks from the user's code and weights, traced by torch.export."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesparse.tflite.exchange.converters.answers import SEED, RefusedError, cause_of
from edgesparse.tflite.exchange.converters.torch_program import refuse_training

SHOWN = 5
"""Keys of weights that a message names."""
# Of torch.nn.DataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
_TRAINS_ALWAYS = "pass training=self.training to dropout and batch norm in forward()"
_STATE = ("state_dict", "model_state_dict", "model")


def trace(
    file: Path, function: str, weights: str, inputs: Sequence[tuple[Sequence[int], str]]
) -> tuple[Any, list[str]]:
    """Return a network in evaluation mode as a program of torch.export.

    Args:
        file: a Python file; its folder is first in sys.path while it runs.
        function: the function or class in it that returns the network, called without arguments.
        weights: file of its state_dict; empty: what the function sets.
        inputs: shape and dtype of each example input.

    Returns:
        The program, and all files outside of this Python that were read.
    """
    import torch

    library = str(Path(sys.base_prefix) / "lib")
    ours, opened = (sys.prefix, library, f"{library}64", *sys.path), _opened()
    sys.argv = [str(file)]
    # As when the file is run as a script; the current folder, as by python -m.
    sys.path[:] = [str(file.parent), *sys.path, str(Path.cwd())]
    try:
        torch.manual_seed(SEED)
        model = _called(file, function)
        if not isinstance(model, torch.nn.Module):
            raise RefusedError(f"returned {type(model).__name__}, not a torch.nn.Module")
        if weights:
            _load_weights(model, Path(weights))
        model.eval().cpu()
        examples = tuple(torch.zeros(tuple(s), dtype=getattr(torch, d)) for s, d in inputs)
        shapes = " and ".join("x".join(map(str, shape)) for shape, _ in inputs)
        with _causes(file, f"cannot answer an input of {shapes}"), torch.no_grad():
            model(*examples)
        read = _users(set(opened), ours)
        with _causes(file, "cannot be traced by torch.export"):
            program = torch.export.export(model, examples)
    finally:
        sys.path[:] = sys.path[1:-1]
    refuse_training(program, _TRAINS_ALWAYS)
    return program, read


def _called(file: Path, function: str) -> Any:
    name = file.stem if file.stem not in sys.modules else f"network_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _causes(file, "cannot be imported"):
        spec.loader.exec_module(module)
    with _causes(file, f"{function}() failed"):
        return getattr(module, function)()


@contextlib.contextmanager
def _causes(file: Path, what: str) -> Iterator[None]:
    """Raise RefusedError for an error of the user's code, with its line there."""
    try:
        yield
    except ModuleNotFoundError as error:
        import torch

        module = (error.name or "").partition(".")[0]
        release = torch.__version__.partition("+")[0]
        raise RefusedError(
            f"{what}: imports {module}, which is neither beside it, nor in the current folder, nor "
            "installed beside the converter; save the network by torch.export where it is, and "
            "pass that .pt2 file, or install the package that has it: "
            f"{sys.executable} -m pip install PACKAGE torch=={release}"
        ) from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f for f in frames if Path(f.filename).parent == file.parent]
        at = f", {Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else ""
        raise RefusedError(f"{what}{at}: {cause_of(error)}") from error


def _load_weights(model: Any, path: Path) -> None:
    """Load all of a network's weights, and no others."""
    import torch

    state = _state(path)
    expected = model.state_dict()
    for prefix in _PREFIXES:
        wrapped = [key.startswith(prefix) for key in state]
        if all(wrapped) and not any(key.startswith(prefix) for key in expected):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    wrong = [
        f"{words} {_listed(sorted(keys))}"
        for words, keys in (
            ("lacks", expected.keys() - state.keys()),
            ("has the unknown", state.keys() - expected.keys()),
        )
        if keys
    ]
    if not wrong:
        shapes = [
            f"{key} is {_shape(state[key])}, not {_shape(value)}"
            for key, value in expected.items()
            if torch.is_tensor(value) and value.shape != state[key].shape
        ]
        wrong = [_listed(shapes)] if shapes else []
    if wrong:
        raise RefusedError(f"{path.name} is not of this network: {'; '.join(wrong)}")
    model.load_state_dict(state)


def _state(path: Path) -> Mapping[str, Any]:
    import torch

    save = f"torch.save(model.state_dict(), {path.with_suffix('.pt').name!r})"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise RefusedError(
            f"{path.name} has other objects than tensors, or is damaged ({cause_of(error)}); "
            f"write its tensors alone, in Python: {save}"
        ) from error
    for key in _STATE:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = isinstance(state, Mapping) and all(map(torch.is_tensor, state.values()))
    if not tensors or not state:
        raise RefusedError(f"{path.name} has no state_dict; in Python: {save}")
    return state


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def _opened() -> set[Path]:
    """Return a set that every file is added to that Python opens from now on."""
    files: set[Path] = set()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str):
            return
        if not set(str(arguments[1])) & set("wax"):
            files.add(Path.cwd() / arguments[0])

    sys.addaudithook(note)
    return files


def _users(opened: set[Path], ours: Sequence[str]) -> list[str]:
    """Return the files opened or imported that lie in none of this Python's folders."""
    modules = [module for name, module in sys.modules.items() if not name.startswith("edgesparse.")]
    imported = {Path(file) for module in modules if (file := getattr(module, "__file__", None))}
    folders = {Path(folder).resolve() for folder in (*ours, "/proc", "/sys", "/dev", "/etc")}
    files = {path.resolve() for path in opened | imported}
    return sorted(
        str(path)
        for path in files
        if path.suffix != ".pyc" and not folders & set(path.parents) and path.is_file()
    )
