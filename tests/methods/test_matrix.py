"""Networks of every layer family through every step: their files in each scheme answer right on
each runtime, or are refused with the reason that is known.

`make test` has a network of each family, and every pair of a family, a scheme, a step and a
runtime; `make test-full` has those of the families after both steps, all others after each.
"""

import re
from itertools import combinations, product

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.data import Tensor
from edgesparse.methods.channels import channels
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.functional import functional
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.quantize_aware import float_twin, prepare, quantize_aware
from edgesparse.methods.training.fitting import fit
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Channels, Magnitude
from edgesparse.tflite.convert import convert
from tests.methods.conftest import quiet
from tests.methods.networks import BUILDERS, FAMILIES, TOKENS, shape_of
from tests.methods.runtimes import RUNTIMES, share_within

TRAIN = Train(epochs=12, batch_size=16, learning_rate=1e-2)
TUNE = Train(epochs=1, batch_size=16, learning_rate=3e-3)
SCHEMES = ("f32", "f16", "dynamic", "int8", "aware")
STEPS = ("magnitude", "channels", "both")
# Networks that cannot lose channels have "aware" after magnitude: FAMILIES is in that order.
CASES = [
    (family, scheme, STEPS[(i + j) % 3], RUNTIMES[(i + j // 3) % len(RUNTIMES)])
    for i, family in enumerate(FAMILIES)
    for j, scheme in enumerate(SCHEMES)
]
FILES = {"magnitude": ("f32", "int8"), "channels": ("f16", "int8"), "both": ("f32", "dynamic")}
"""What any network is written as after each step; all schemes where there is one step only."""
TOLERANCE = {"f32": 1e-3, "f16": 1e-2, "dynamic": 0.15, "int8": 0.2, "aware": 0.2}
# The share of samples that must be within the tolerance, as a pipeline has it.
AGREEMENT = {"f32": 1.0, "f16": 1.0, "dynamic": 0.9, "int8": 0.9, "aware": 0.9}
# Why no layer of a network can lose channels; all others lose some.
RIGID = {
    "own layer": "Own can mix channels",
    "shared": "its softmax mixes channels",
    "conv2d, locally connected": "LocallyConnected2D can mix channels",
    "functions": "tf.split has several outputs",
}
# What TFLite has no operator for; said before training, too.
FOREIGN = {"conv2d, conv3d": "TFLite has no operator for AvgPool3D"}
UNKNOWN_TO_THE_TOOLKIT = ("gru", "conv1d", "embedding", "own layer", "attention")
"""Networks with layers that are left out of quantization-aware training."""


def steps_of(network):
    """Pruning after the loss of channels is tried with a network of each family; its other steps
    are in CASES."""
    return ("both",) if network in FAMILIES and network not in RIGID else STEPS[:2]


def dataset_of(name):
    """Four patterns, and noise: learned in seconds."""
    random, shape, y = np.random.default_rng(0), shape_of(name), np.arange(160) % 4
    if shape == TOKENS:
        x = random.integers(0, 12, (160, *shape)) + 12 * y[:, None]
    else:
        patterns = random.random((4, *shape))
        x = (0.4 * random.random((160, *shape)) + 0.6 * patterns[y]).astype(np.float32)
    return data.from_arrays("patterns", x, y)


def built(name):
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(3)
    dtype = "int32" if shape_of(name) == TOKENS else "float32"
    return functional(BUILDERS[name](), {"x": Tensor(shape_of(name), dtype)}, name)


class Trained:
    """A network that is trained once, the models that steps make of it, and their files."""

    def __init__(self, name, weights_of, folder):
        self.name, self.folder, self.dataset = name, folder, dataset_of(name)
        self.weights = weights_of(f"matrix-{name}", self._train)
        self.models = {}

    def _train(self):
        model = built(self.name)
        fit(model, self.dataset, TRAIN, quiet)
        return model

    def model(self, step):
        """Fine-tuned after the step; the caller gives none of its layers away."""
        if step not in self.models:
            if step == "both":
                model = tf.keras.models.clone_model(self.model("channels"))
                model.set_weights(self.model("channels").get_weights())
            else:
                model = built(self.name)
                model.set_weights(self.weights)
            change = _with_fewer_channels if step == "channels" else _with_zeros
            self.models[step] = change(model, self.dataset)
        return self.models[step]

    def file(self, step, scheme):
        """Its path; beside it, what it should answer."""
        path = self.folder / f"{self.name} {step} {scheme}.tflite"
        if not path.exists():
            model = self.model(step)
            if scheme == "aware":
                model = _quantization_aware(self.name, model, self.dataset)
            x = data.arrays(self.dataset.validation, 12)[0]["x"]
            expected = model(x, training=False).numpy()
            samples = data.representative(self.dataset, 40)["x"]
            chosen = "int8" if scheme == "aware" else scheme
            content = convert(model, chosen, samples, one_scale=True)
            np.savez(path.with_suffix(".npz"), x=x, y=expected)
            path.write_bytes(content)
        return path

    def check(self, step, scheme, runtimes=RUNTIMES):
        path = self.file(step, scheme)
        for runtime in runtimes:
            within = share_within(runtime, path, TOLERANCE[scheme])
            assert within >= AGREEMENT[scheme], (runtime, step, scheme)


def _with_fewer_channels(model, dataset):
    parameters = model.count_params()
    spec = Channels(method="channels", ratio=0.5, epochs=1)
    done = channels(model, dataset, TUNE, spec, quiet)
    assert "of the multiply-accumulates" in done.notes[0]
    assert done.model.count_params() < parameters
    return done.model


def _with_zeros(model, dataset):
    spec = Magnitude(method="magnitude", sparsity=0.8, epochs=1)
    done = magnitude(model, dataset, TUNE, spec, quiet)
    check_reached(done)
    assert abs(done.coverage.achieved - 0.8) <= 0.05, done.coverage
    return done.model


def check_reached(done):
    """Each layer has its zeros, and what is left dense has a reason."""
    for layer in done.layers:
        # Each output keeps a weight.
        most = 1 - layer.shape[-1] / layer.size
        assert layer.achieved == pytest.approx(min(0.8, most), abs=0.03), layer
    covered = done.coverage
    left = sum(layer.share for layer in covered.left_dense)
    assert covered.achieved == pytest.approx(0.8 * (1 - left), abs=0.03)
    assert all(layer.reason for layer in covered.left_dense)
    named = {layer.name for layer in [*done.layers, *covered.left_dense]}
    assert named == set(kernels(done.model))


def zeros_of(model):
    """How many each kernel has that was pruned."""
    values = [kernel.variable.numpy() for kernel in kernels(model).values()]
    return sorted(int(np.sum(v == 0)) for v in values if np.mean(v == 0) > 0.5)


def _quantization_aware(name, model, dataset):
    """What is converted after that training, whose zeros are those that were there before."""
    zeros = zeros_of(model)
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    train = TUNE.model_copy(update={"learning_rate": 1e-4})
    prepared, _ = quantize_aware(twin, dataset, train, quiet)
    assert zeros_of(prepared.model) == zeros
    if name in UNKNOWN_TO_THE_TOOLKIT:
        assert prepared.left
    if not prepared.left:
        return prepared.model
    floating = float_twin(prepared, twin)
    if name in UNKNOWN_TO_THE_TOOLKIT:
        assert floating is twin
    if floating is None:
        return prepared.model
    assert zeros_of(floating) == zeros
    x = dataset.validation.samples.batch(8).take(1).get_single_element()[0]
    # Fake-quantization is a step of a 256th here and there.
    np.testing.assert_allclose(floating(x), prepared.model(x, training=False), atol=0.1)
    return floating


@pytest.fixture(scope="module")
def trained(weights_of, tmp_path_factory):
    """A network's tests come one after another: only the latest is kept."""
    latest = []

    def network(name):
        if not latest or latest[0].name != name:
            latest[:] = [Trained(name, weights_of, tmp_path_factory.mktemp("files"))]
        return latest[0]

    return network


def test_every_pair_is_among_the_cases():
    values = (FAMILIES, SCHEMES, STEPS, RUNTIMES)
    for first, second in combinations(range(4), 2):
        pairs = {(case[first], case[second]) for case in CASES}
        assert pairs == set(product(values[first], values[second]))


def label(case):
    """The scheduler of pytest's processes keeps together what is alike up to the last hyphen."""
    family, scheme, step, runtime = case
    return f"{family}-{scheme} after {step} on {runtime.partition('.')[0]}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "scheme", "step", "runtime"), CASES, ids=map(label, CASES))
def test_a_file_answers_right_or_is_refused_with_a_reason(name, scheme, step, runtime, trained):
    network = trained(name)
    if name in RIGID and step != "magnitude":
        with pytest.raises(EdgesparseError, match=re.escape(RIGID[name])):
            network.model(step)
    else:
        network.check(step, scheme, [runtime])


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("scheme", ["f32", "int8"])
def test_what_tflite_has_no_operator_for_is_refused(name, scheme):
    samples = data.representative(dataset_of(name), 40)["x"]
    with pytest.raises(EdgesparseError, match=FOREIGN[name]):
        convert(built(name), scheme, samples)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "step"), [(name, step) for name in BUILDERS for step in steps_of(name)]
)
def test_every_network_answers_right_or_is_refused_with_a_reason(name, step, trained):
    network = trained(name)
    if name in RIGID and step != "magnitude":
        with pytest.raises(EdgesparseError, match=re.escape(RIGID[name])):
            network.model(step)
        return
    model = network.model(step)
    if name in FOREIGN:
        with pytest.raises(EdgesparseError, match=FOREIGN[name]):
            network.file(step, "f32")
        return
    # Each family is trained under fake-quantization; of all others it is known that they can be.
    last = step == ("magnitude" if name in RIGID else steps_of(name)[-1])
    schemes = [s for s in SCHEMES if s != "aware"] if name in RIGID else list(FILES[step])
    if name not in FAMILIES and name not in RIGID:
        # By turns: float after one of its steps and int8 after the other.
        turn = list(BUILDERS).index(name) + STEPS.index(step)
        schemes = schemes[turn % 2 :][:1]
    if last and name in FAMILIES:
        schemes.append("aware")
    elif last:
        assert prepare(model).model.layers
    for scheme in schemes:
        network.check(step, scheme)
