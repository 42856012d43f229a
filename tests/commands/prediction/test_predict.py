"""Predictions before training, as `plan` prints them."""

import json

import pytest

from edgesparse.commands.prediction.predict import channel_widths
from edgesparse.delegate.choice import ChannelMultiple
from edgesparse.spec.pipeline import Variant
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from tests.conftest import TINY, run_cli

pytestmark = pytest.mark.slow
AHEAD = ("untrained-model", "preflight")
DEVICE = (
    "name: both\nconnect: {local: {}}\nworkdir: work\nruntimes: [tflite-runtime, ai-edge-litert]\n"
    "delegate: xnnpack\n"
)


def advice(cli, folder, variants):
    (folder / "devices").mkdir(exist_ok=True)
    (folder / "devices" / "both.yaml").write_text(DEVICE)
    start = TINY.index("  sparse-f32:")
    text = TINY[:start] + variants + TINY[TINY.index("benchmark:") :]
    (folder / "p.yaml").write_text(text)
    done = cli("plan", "p.yaml", "--device", "both", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not any(s["cached"] for s in found["stages"] if s["stage"] not in AHEAD)
    return [p["message"] for p in found["predictions"] if p["topic"] != "task"]


@pytest.mark.parametrize("multiple", [4, 16])
def test_widths_of_channels_are_announced(multiple):
    step = {"method": "channels", "macs": 0.4}
    steps = {"few": step, "exact": step | {"round_to": 4}, "dense": []}
    variants = {name: Variant.model_validate({"sparsify": s}) for name, s in steps.items()}
    wanted = ChannelMultiple(multiple, "the tiles of kernels")
    profile = Profile(Machine("ai-edge-litert", "2", "x86_64"), channel_multiple=wanted)
    (found,) = channel_widths(variants, {"ai-edge-litert": profile}, "pi: ")
    assert found.message == (
        f"pi: few: channels are left in multiples of {multiple}, the tiles of kernels "
        "(round_to: auto)"
    )


def test_what_a_runtime_would_refuse_is_converted_as_it_takes_it(cli, tmp_path):
    """A scale for each output of a fully connected layer is too new for tflite-runtime."""
    assert advice(cli, tmp_path, "  dyn: {quantize: dynamic}\n") == []


def test_what_will_not_be_reached_is_told(cli, tmp_path):
    found = advice(
        cli,
        tmp_path,
        "  little: {sparsify: {method: magnitude, sparsity: 0.9, exclude: ['dense*']}}\n"
        "  meant: {sparsify: {method: magnitude, sparsity: 0.9, exclude: ['dense*'], "
        "allow_partial: true}}\n"
        "  shrunk: {sparsify: {method: l1, sparsity: 0.9, exclude: ['dense*']}}\n"
        "  moved: {sparsify: {method: rigl, sparsity: 0.9, exclude: ['dense*']}}\n"
        "  enough: {sparsify: {method: rigl, sparsity: 0.9, exclude: [classifier]}}\n",
    )
    start = "at most 12.2% of the requested 90% sparsity is reachable; left dense: "
    assert found[0].startswith(f"little: {start}")
    assert found[0].endswith(": excluded; fails without 'allow_partial: true'")
    assert found[1].startswith(f"meant: {start}")
    assert found[1].endswith(": excluded")
    # All of the rest but what must pass something on.
    start = "at most 13.4% of the requested 90% sparsity is reachable; left"
    assert found[2].startswith(f"shrunk: {start}")
    assert found[3].startswith(f"moved: {start}")
    assert not any(line.startswith("enough: at most") for line in found)


def test_zeros_that_will_not_pay_are_named_with_the_pattern_that_would(cli, tmp_path):
    found = advice(
        cli,
        tmp_path,
        "  random: {sparsify: {method: magnitude, sparsity: 0.9, exclude: [classifier]}, "
        "quantize: int8}\n"
        "  few: {sparsify: {method: magnitude, sparsity: 0.3, exclude: [classifier]}}\n"
        "  blocks: {sparsify: {method: magnitude, sparsity: 0.9, pattern: block-1x16, "
        "exclude: [classifier]}, quantize: int8}\n"
        "  auto: {sparsify: {method: magnitude, sparsity: 0.9, pattern: auto}, quantize: int8}\n"
        "  channels: {sparsify: {method: channels, ratio: 0.5}, quantize: int8}\n",
    )
    left = "left dense: classifier (13.5%): excluded"
    assert found[:2] == [
        f"random: at most 77.8% of the requested 90% sparsity is reachable; {left}",
        f"blocks: at most 77.8% of the requested 90% sparsity is reachable; {left}",
    ]
    assert found[2:] == [
        "both: no speed-up expected from zeros in 1 layer of random on tflite-runtime, "
        "ai-edge-litert: its int8 kernel requires pattern block-1x16 (or auto), not unstructured",
        "both: no speed-up expected from zeros in 1 layer of few on tflite-runtime, "
        "ai-edge-litert: no sparse f32 kernel is faster for fully connected layers at 30%",
    ]


def test_half_precision_that_will_not_be_computed_is_told(cli, tmp_path):
    found = advice(
        cli,
        tmp_path,
        "  half: {quantize: {scheme: f16, compute: f16}}\n"
        "  zeros: {sparsify: {method: magnitude, sparsity: 0.9, exclude: [classifier]}, "
        "quantize: {compute: f16}}\n",
    )
    assert found[-2:] == [
        "both: no speed-up from half precision of half, zeros on tflite-runtime, "
        "ai-edge-litert: XNNPACK computes in 32 bits on x86",
        "both: no speed-up from zeros of zeros: they are stored densely, since half precision "
        "with sparse storage crashes or is slower",
    ]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{method: l1, sparsity: 0.5, exclude: [wode]}", "no layer that can be pruned"),
        ("{method: rigl, sparsity: 0.5, exclude: [wode]}", "no layer that can be pruned"),
        ("{method: threshold, relative: 1, exclude: [wode]}", "no layer that can be pruned"),
        ("{method: l1, sparsity: 0.5, group: channel, exclude: [wode]}", "no layer with channels"),
    ],
)
def test_a_glob_that_matches_nothing_is_an_error_before_training(cli, tmp_path, step, message):
    start = TINY.index("  sparse-f32:")
    text = TINY[:start] + f"  other: {{sparsify: {step}}}\n" + TINY[TINY.index("benchmark:") :]
    (tmp_path / "p.yaml").write_text(text)
    done = cli("deploy", "p.yaml")
    assert done.returncode == 2, done.stderr
    assert f"'wode' matches {message}" in done.stderr
    assert "train ..." not in done.stderr


def test_blocks_by_a_penalty_are_told_as_blocks(cli, tmp_path):
    """Not as single zeros, whose kernel would want blocks."""
    found = advice(
        cli,
        tmp_path,
        "  blocks: {sparsify: {method: l1, sparsity: 0.9, group: block-1x4}}\n"
        "  single: {sparsify: {method: rigl, sparsity: 0.5}}\n",
    )
    assert not any("requires pattern" in line and "blocks" in line for line in found)


OWN = """
from pathlib import Path
import numpy as np
import tensorflow as tf
from edgesparse import data

K = tf.keras.layers


def build():
    Path("weights.bin").read_bytes()


def data_that_ends():
    def samples():
        yield np.zeros(4, np.float32), 0
        raise OSError("the camera is gone")

    signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int64))
    part = tf.data.Dataset.from_generator(samples, output_signature=signature)
    part = part.apply(tf.data.experimental.assert_cardinality(9))
    return data.from_datasets("camera", part, part, part, ["a", "b"])


def small():
    return tf.keras.Sequential([tf.keras.Input((4,)), K.Dense(2)])


class Stepping(tf.keras.Model):
    def train_step(self, data):
        raise AssertionError("the model's own step is called")


def stepping(flat):
    i = tf.keras.Input((8, 8, 1))
    x = K.Dense(10, "softmax")(K.Flatten()(i))
    if flat:
        return Stepping(i, x)
    inner = tf.keras.Model(i, x)
    return Stepping(i, inner(i))


def train(model):
    pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all tests with user code: a worker that has imported it serves them all."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    (folder / "devices").mkdir()
    (folder / "devices" / "both.yaml").write_text(DEVICE)
    return folder


@pytest.mark.parametrize(
    ("data", "model", "code", "message"),
    [
        ("{name: digits, args: {input_shape: [8, 8, 1]}}", "build", 2,
         "error: p.yaml:3:8: own.py:build: own.py:11: FileNotFoundError: "),
        ("{ref: 'own.py:data_that_ends'}", "small", 0, "info: preflight failed for dense: "),
    ],
)  # fmt: skip
def test_what_raises_before_training_is_said(folder, data, model, code, message):
    (folder / "p.yaml").write_text(
        f"name: p\ndata: {data}\nmodel: {{ref: 'own.py:{model}'}}\nvariants: {{dense: {{}}}}\n"
    )
    done = run_cli("plan", "p.yaml", cwd=folder)
    assert done.returncode == code, done.stderr
    assert message in done.stderr + done.stdout
    if code == 0:
        assert "the camera is gone" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("flat", "train", "variant", "when"),
    [
        ("false", "epochs: 1", "dense-f32: {}", "training"),
        ("true", "epochs: 1", "dense-f32: {}", None),
        (
            "true",
            "epochs: 1",
            "half: {sparsify: {method: magnitude, sparsity: 0.5, epochs: 1}}",
            "fine-tuning",
        ),
        ("false", "epochs: 0", "dense-f32: {}", None),
        ("false", "epochs: 1, ref: 'own.py:train'", "dense-f32: {}", None),
    ],
)
def test_a_training_of_the_models_own_is_not_left_out_in_silence(
    folder, flat, train, variant, when
):
    (folder / "p.yaml").write_text(
        "name: own\ndata: {name: digits, args: {input_shape: [8, 8, 1]}}\n"
        f"model: {{ref: 'own.py:stepping', args: {{flat: {flat}}}}}\n"
        f"train: {{{train}}}\nvariants:\n  {variant}\n"
    )
    done = run_cli("plan", "p.yaml", "--device", "both", cwd=folder)
    if when is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2
        assert f"p.yaml:3:8: Stepping.train_step() is not used in {when}, " in done.stderr
        assert "train: {ref: my_loop.py:train}" in done.stderr
