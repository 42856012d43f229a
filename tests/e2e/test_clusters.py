"""What is said of XNNPACK's sparse path, held against the emulated Raspberry Pi 5."""

from contextlib import closing

import numpy as np
import pytest

from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.target import open_target
from edgesparse.devices.agent.events import Check, Failed
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import round_medians, run_job
from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.methods.masks import magnitude_mask
from edgesparse.models.mobilenet_v1 import mobilenet_v1
from edgesparse.spec.reading.load import find_device
from edgesparse.tflite.convert import convert
from edgesparse.tflite.runtimes.explain import explain
from edgesparse.tflite.runtimes.storage import store
from tests.conftest import ROOT
from tests.e2e.conftest import make_home
from tests.tflite.runtimes.clusters import RECIPES, both_forms

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(2400)]
# One that takes the path, and for each condition one that breaks it alone.
TRIED = (
    "taken", "stem-same", "stem-channels", "stem-5x5", "depthwise-same", "max-pool",
    "concatenate", "exp", "used-beside", "no-end", "few-zeros",
)  # fmt: skip
RUNTIME = "tflite-runtime"
SETTINGS = Settings(0, 0.0, 1, 0.0, 300.0)


@pytest.fixture(scope="module")
def target(emulator_tools, tmp_path_factory):
    """A Pi 5 of its own."""
    home = tmp_path_factory.mktemp("clusters") / "home"
    make_home(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.chdir(home)
        device = find_device(ROOT / "devices" / "pi5-emulated.yaml", ROOT)
        with closing(open_target(device)) as found:
            yield found


def medians(target, entries):
    events = run_job(target.transport, Job("clusters", 1, SETTINGS, tuple(entries)))
    assert not [event for event in events if isinstance(event, Failed)]
    return {entry: times[0] / 1e6 for entry, times in round_medians(events).items()}


def test_the_pi_agrees_with_every_verdict(target, tmp_path):
    profile = profiles(target, None)[RUNTIME]
    checks, rounds, exploited = [], [], {}
    for name in TRIED:
        dense, sparse, x, y = both_forms(RECIPES[name])
        golden = tmp_path / f"{name}.npz"
        save_golden(golden, x, y)
        (told,) = [e for e in explain(sparse, profile) if e.name == "second"]
        exploited[name] = told.exploited if told.accepted else None
        for form, content in (("dense", dense), ("sparse", sparse)):
            path = tmp_path / f"{name}-{form}.tflite"
            path.write_bytes(content)
            entry = Entry(f"{name} {form}", path, RUNTIME, "xnnpack", 1)
            if told.accepted:
                rounds.append(entry)
        if told.accepted and not told.exploited:
            continue  # It runs as the dense file does, and as fast.
        checks.append(
            Entry(
                name,
                path,
                RUNTIME,
                "xnnpack",
                1,
                golden=golden,
                tolerance=0.01,
                golden_samples=2,
            )
        )
    assert sum(found is not True for found in exploited.values()) >= 10
    answered = run_job(target.transport, Job("answers", 0, SETTINGS, tuple(checks)))
    right = {e.entry: e.agreement == 1.0 for e in answered if isinstance(e, Check)}
    wanted = {n: found is True for n, found in exploited.items() if found is not False}
    assert right == wanted
    times = medians(target, rounds)
    for name, found in exploited.items():
        if found is not None:
            ratio = times[f"{name} dense"] / times[f"{name} sparse"]
            assert (ratio > 1.5) if found else (0.98 < ratio < 1.02), (name, ratio)


def test_a_full_mobilenet_is_three_times_as_fast_with_zeros(target, tmp_path):
    """alpha 1.0 at 128x128, 90 % zeros in its 1x1 convolutions."""
    model = mobilenet_v1([128, 128, 3], 10)
    for i in range(1, 14):
        kernel = model.get_layer(f"conv_pw_{i}").kernel
        kernel.assign(kernel * magnitude_mask(kernel.numpy(), 0.9, "unstructured"))
    dense = convert(model, "f32", np.zeros((0, 1), np.float32))
    entries = []
    for runtime, profile in profiles(target, None).items():
        for form, content in (("dense", dense), ("sparse", store(dense, profile, "auto")[0])):
            path = tmp_path / f"{runtime}-{form}.tflite"
            path.write_bytes(content)
            entries.append(Entry(f"{runtime} {form}", path, runtime, "xnnpack", 1))
    times = medians(target, entries)
    for runtime, least in (("tflite-runtime", 2.8), ("ai-edge-litert", 3.0)):
        ratio = times[f"{runtime} dense"] / times[f"{runtime} sparse"]
        print(f"{runtime}: {ratio:.3f}x")
        assert ratio >= least
