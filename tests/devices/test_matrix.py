"""Every model in every scheme and storage on every runtime: it runs and answers right, or what is
known of the runtime says before that it will not."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import models
from edgesparse.devices.agent.events import Check, Failed
from edgesparse.devices.agent.job import Entry, check_only
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.devices.setup.runtimes import provision
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.methods.masks import magnitude_mask
from edgesparse.methods.network.kernels import prunable
from edgesparse.spec.code.references import builtin_names
from edgesparse.spec.device import DEFAULT_WORKDIR, Local
from edgesparse.spec.pipeline import ModelSource
from edgesparse.spec.reading.load import parse_device
from edgesparse.tflite.convert import convert
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.explain import explain
from edgesparse.tflite.runtimes.storage import store
from tests.tflite.test_convert import answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MODELS = {
    "autoencoder": {},
    "ds_cnn": {},
    "mlp": {"input_shape": [16, 16, 1], "classes": 10, "widths": [128, 128]},
    "mobilenet_v1": {"input_shape": [32, 32, 3], "classes": 10, "alpha": 0.25, "downsample": 3},
    "mobilenet_v2": {"input_shape": [32, 32, 3], "classes": 10, "alpha": 0.35, "downsample": 3},
    "moe_mlp": {"input_shape": [16, 16, 1], "classes": 10, "experts": 4, "width": 32, "hidden": 32},
    "resnet8": {},
    "transformer": {
        "classes": 10,
        "length": 16,
        "features": 8,
        "width": 16,
        "heads": 2,
        "window": 8,
        "blocks": 1,
        "hidden": 32,
    },
}
SCHEMES = ("f32", "f16", "dynamic", "int8")
STORAGES = ("dense", "auto")
RUNTIMES = {"tflite-runtime": "2.14.0", "ai-edge-litert": "2.1.6", "old": "1.4.0"}
# Of the outputs' range, against the same numbers run by the locked runtime where they are rounded.
TOLERANCE = {"f32": 1e-3, "f16": 1e-2, "dynamic": 0.1, "int8": 0.1}


def profile(runtime):
    name = "ai-edge-litert" if runtime == "old" else runtime
    return Profile(Machine(name, RUNTIMES[runtime], "x86_64"))


def converted(chosen, folder):
    """Of {model: schemes}: (model, scheme, storage) -> the bytes to be stored, the golden file."""
    result = {}
    for name, schemes in chosen.items():
        args = MODELS[name]
        tf.keras.utils.set_random_seed(1)
        model = models.build(ModelSource(name=name, args=args), Path())
        for kernel in prunable(model).values():
            mask = magnitude_mask(kernel.variable.numpy(), 0.9, "unstructured")
            kernel.variable.assign(kernel.variable.numpy() * mask)
        x = np.random.default_rng(1).random((4, *model.input_shape[1:]), dtype=np.float32)
        for scheme in schemes:
            # As a pipeline does: zeros go with one scale for all outputs. Where that changes who
            # can run it, it is converted without, too.
            content = convert(model, scheme, x, one_scale=True)
            rounded = scheme in ("dynamic", "int8")
            y = answers(content, x) if rounded else model(x, training=False).numpy()
            golden = folder / f"{name}-{scheme}.npz"
            save_golden(golden, x, y)
            dense = convert(model, scheme, x) if scheme == "dynamic" else content
            result[name, scheme, "dense"] = (dense, golden)
            result[name, scheme, "auto"] = (content, golden)
    return result


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return converted(dict.fromkeys(MODELS, SCHEMES), tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def some_files(tmp_path_factory):
    """Models whose conversion takes little, each in one scheme."""
    schemes = {
        "autoencoder": ["f32"],
        "ds_cnn": ["f16"],
        "mlp": ["dynamic"],
        "moe_mlp": ["int8"],
        "transformer": ["f32"],
        "resnet8": ["int8"],
    }
    return converted(schemes, tmp_path_factory.mktemp("matrix"))


def cases(runtime, files, folder):
    """For each case an entry, and whether the runtime is known to refuse it."""
    local, entries, refused = profile(runtime), [], {}
    for (name, scheme, storage), (dense, golden) in files.items():
        content = store(dense, local, storage)[0]
        path = folder / f"{name}-{scheme}-{storage}.tflite"
        path.write_bytes(content)
        case = f"{name} {scheme} {storage}"
        entries.append(
            Entry(
                case,
                path,
                local.machine.runtime,
                "xnnpack",
                1,
                golden=golden,
                tolerance=TOLERANCE[scheme],
            )
        )
        reasons = [e.reason for e in explain(content, local) if not e.accepted]
        refused[case] = "; ".join(dict.fromkeys(reasons))
    return entries, refused


def surprises(transport, runtime, files, folder):
    """Where what is known and what happens differ; and what is known of each case."""
    entries, refused = cases(runtime, files, folder)
    events = run_job(transport, check_only(entries, f"matrix-{runtime}", 120.0))
    result = {}
    for event in events:
        if isinstance(event, Failed):
            result[event.entry] = event.error.strip().splitlines()[-1]
        elif isinstance(event, Check):
            right = (event.agreement or 0.0) == 1.0
            result[event.entry] = "" if right else f"answers wrong ({event.agreement:.0%} right)"
    assert result.keys() == refused.keys()
    return {case: (result[case], refused[case]) for case in result
            if bool(result[case]) != bool(refused[case])}, refused  # fmt: skip


def test_every_model_is_in_the_matrix():
    assert set(MODELS) == set(builtin_names("models"))


def check_here(runtime, files, folder):
    here = LocalTransport("here", Local(), DEFAULT_WORKDIR)
    odd, refused = surprises(here, runtime, files, folder)
    assert odd == {}
    if runtime == "tflite-runtime":
        reason = "its FULLY_CONNECTED supports no scales per channel with float inputs"
        assert refused["mlp dynamic dense"].startswith(reason)
    else:
        assert not any(refused.values())


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_some_models_on_the_runtimes_here(runtime, some_files, tmp_path):
    check_here(runtime, some_files, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_everything_on_the_runtimes_here(runtime, files, tmp_path):
    assert len(files) == len(MODELS) * len(SCHEMES) * len(STORAGES)
    check_here(runtime, files, tmp_path)


@pytest.mark.full
def test_an_older_runtime(server, files, tmp_path):
    text = server.device_yaml().replace("install: system", "install: venv")
    text = text.replace("[ai-edge-litert]", "[{name: ai-edge-litert, version: 1.4.0}]")
    board = server.connect(tmp_path / "work")
    try:
        provision(board, parse_device(text).spec)
        odd, _ = surprises(board, "old", files, tmp_path)
    finally:
        board.close()
    assert odd == {}
