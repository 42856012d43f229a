"""Small convolutional networks, each of which breaks one condition of XNNPACK's sparse path."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.encode import Encoding, encode
from edgesparse.tflite.format.sparse_layout import along
from edgesparse.tflite.runtimes.storage import is_candidate

layers = tf.keras.layers
SIZE = 64
WIDTH = 96


@dataclass(frozen=True)
class Recipe:
    """How a network differs from one that takes the sparse path."""

    stem_padding: str = "explicit"
    stem_kernel: int = 3
    channels: int = 3
    depthwise_padding: str = "explicit"
    depthwise: Any = None
    pointwise_stride: int = 1
    between: Callable[[Any], Any] | None = None
    beside: bool = False
    keepdims: bool = True
    pooled: bool = True
    sparsity: float = 0.9
    scheme: str = "f32"
    form: str = "densify"
    classifier: str = "dense"


def network(recipe: Recipe) -> tf.keras.Model:
    """Stem, two depthwise-separable blocks of which the second halves the image, pool, classes."""
    tf.keras.utils.set_random_seed(3)
    tf.keras.backend.reset_uids()  # Names are those of the first network in a process.
    inputs = tf.keras.Input((SIZE, SIZE, recipe.channels))
    x = inputs
    if recipe.stem_padding == "explicit":
        x = layers.ZeroPadding2D(recipe.stem_kernel // 2)(x)
    padding = "valid" if recipe.stem_padding == "explicit" else "same"
    x = layers.Conv2D(16, recipe.stem_kernel, 2, padding=padding, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Conv2D(WIDTH, 1, activation="relu", name="first")(x)
    side = x
    if recipe.depthwise is not None:
        x = recipe.depthwise(x)
    elif recipe.depthwise_padding == "explicit":
        x = layers.DepthwiseConv2D(3, 2, "valid", activation="relu")(layers.ZeroPadding2D(1)(x))
    else:
        x = layers.DepthwiseConv2D(3, 2, "same", activation="relu")(x)
    x = layers.Conv2D(WIDTH, 1, recipe.pointwise_stride, activation="relu", name="second")(x)
    if recipe.between is not None:
        x = recipe.between(x)
    x = layers.Conv2D(WIDTH, 1, activation="relu", name="third")(x)
    if recipe.pooled:
        x = layers.GlobalAveragePooling2D(keepdims=recipe.keepdims)(x)
    else:
        x = layers.AveragePooling2D(int(x.shape[1]))(x)
    if recipe.classifier == "convolution" and len(x.shape) == 4:
        x = layers.Reshape((10,))(layers.Conv2D(10, 1, name="classes")(x))
    else:
        x = layers.Dense(10, name="classes")(layers.Flatten()(x))
    if recipe.beside:
        aside = layers.Dense(10)(layers.Flatten()(layers.MaxPooling2D(8)(side)))
        x = layers.Add()([x, aside])
    model = tf.keras.Model(inputs, x)
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1):
            kernel, bias = layer.get_weights()
            kernel *= random.random(kernel.shape) >= recipe.sparsity
            layer.set_weights([kernel, bias])
    return model


def both_forms(recipe: Recipe) -> tuple[bytes, bytes, np.ndarray, np.ndarray]:
    """The model stored densely and sparse, inputs and what Keras answers."""
    model = network(recipe)
    x = np.random.default_rng(7).normal(size=(4, *model.inputs[0].shape[1:])).astype(np.float32)
    dense = convert(model, recipe.scheme, x)
    sparse = encode(dense, lambda _: None) if recipe.form == "dense" else sparse_form(dense)
    return dense, sparse, x, model(x, training=False).numpy()


def sparse_form(dense: bytes) -> bytes:
    """The same file with each weight that has zeros stored sparse, for XNNPACK's sparse path."""

    def choose(constant):
        if not is_candidate(constant) or np.mean(constant.values == 0) <= 0.3:
            return None
        return Encoding(along(constant.values.ndim, constant.values.ndim - 1), True)

    return encode(dense, choose)


RECIPES = {
    "taken": Recipe(),
    "taken-5x5": Recipe(
        depthwise=lambda x: layers.DepthwiseConv2D(5, 2, "valid")(layers.ZeroPadding2D(2)(x))
    ),
    "taken-flat": Recipe(keepdims=False),
    "taken-f16": Recipe(scheme="f16"),
    "taken-hardswish": Recipe(between=lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "taken-residual": Recipe(between=lambda x: layers.Add()([x, layers.Conv2D(WIDTH, 1)(x)])),
    "classifier-convolution": Recipe(classifier="convolution"),
    "stem-same": Recipe(stem_padding="same"),
    "stem-channels": Recipe(channels=1),
    "stem-5x5": Recipe(stem_kernel=5),
    "depthwise-same": Recipe(depthwise_padding="same"),
    "depthwise-7x7": Recipe(depthwise=lambda x: layers.DepthwiseConv2D(7, 1, "same")(x)),
    "depthwise-multiplier": Recipe(
        depthwise=lambda x: layers.DepthwiseConv2D(3, 1, "same", depth_multiplier=2)(x)
    ),
    "depthwise-dilated": Recipe(
        depthwise=lambda x: layers.DepthwiseConv2D(3, 1, "same", dilation_rate=2)(x)
    ),
    "depthwise-stride3": Recipe(
        depthwise=lambda x: layers.DepthwiseConv2D(3, 3, "valid")(layers.ZeroPadding2D(1)(x))
    ),
    "pointwise-stride": Recipe(pointwise_stride=2),
    "convolution-3x3": Recipe(between=lambda x: layers.Conv2D(WIDTH, 3, padding="same")(x)),
    "max-pool": Recipe(between=lambda x: layers.MaxPooling2D(2)(x)),
    "concatenate": Recipe(
        between=lambda x: layers.Concatenate()([x, layers.ReLU()(layers.Conv2D(WIDTH, 1)(x))])
    ),
    "tanh": Recipe(between=lambda x: tf.tanh(x)),
    "exp": Recipe(between=lambda x: tf.exp(-x)),
    "prelu": Recipe(between=lambda x: layers.PReLU(shared_axes=[1, 2])(x)),
    "squeeze-excite": Recipe(
        between=lambda x: layers.Multiply()(
            [
                x,
                layers.Conv2D(WIDTH, 1, activation="sigmoid")(
                    layers.GlobalAveragePooling2D(keepdims=True)(x)
                ),
            ]
        )
    ),
    "used-beside": Recipe(beside=True),
    "no-end": Recipe(pooled=False),
    "few-zeros": Recipe(sparsity=0.62),
    "int8": Recipe(scheme="int8"),
    "stored-dense": Recipe(form="dense"),
}


@dataclass(frozen=True)
class Verdict:
    """What tflite-runtime 2.14 and ai-edge-litert 2.1.6 do with a network on a Raspberry Pi 5:
    taken, dense or wrong; and words of the reason."""

    tflite: str
    litert: str
    reason: str = ""


TAKEN = Verdict("taken", "taken")
VERDICTS = {
    **dict.fromkeys([name for name in RECIPES if name.startswith("taken")], TAKEN),
    "squeeze-excite": TAKEN,
    "classifier-convolution": Verdict("taken", "wrong", "'classes' of one pixel is the last"),
    "stem-same": Verdict("dense", "dense", "has stride 2 with TensorFlow's 'same' padding"),
    "stem-channels": Verdict("dense", "dense", "has 1 input channels"),
    "stem-5x5": Verdict("dense", "dense", "is 5x5; only 1x1, and 3x3 for the first"),
    "depthwise-same": Verdict("wrong", "wrong", "the sparse path requires symmetric padding"),
    "depthwise-7x7": Verdict("wrong", "wrong", "is 7x7; only 3x3 and 5x5"),
    "depthwise-multiplier": Verdict("wrong", "wrong", "has a depth multiplier of 2, not 1"),
    "depthwise-dilated": Verdict("wrong", "wrong", "is dilated"),
    "depthwise-stride3": Verdict("wrong", "wrong", "has stride 3x3; only 1 and 2"),
    "pointwise-stride": Verdict("wrong", "wrong", "a 1x1 convolution must have stride 1"),
    "convolution-3x3": Verdict("wrong", "wrong", "a 3x3 convolution must be the first"),
    "max-pool": Verdict("wrong", "wrong", "MAX_POOL_2D 'max_pooling2d' is not supported"),
    "concatenate": Verdict("dense", "dense", "is read outside: CONCATENATION 'concatenate'"),
    "tanh": Verdict("wrong", "taken", "TANH 'tf.math.tanh' is not supported on the sparse path"),
    "exp": Verdict("dense", "taken", "EXP 'tf.math.exp' is not delegated to XNNPACK"),
    "prelu": Verdict("dense", "dense", "MUL 'p_re_lu' has an input without 4 dimensions"),
    "used-beside": Verdict("dense", "dense", "is read outside: MAX_POOL_2D"),
    "no-end": Verdict("dense", "dense", "no global pooling ends its part"),
    "few-zeros": Verdict("dense", "dense", "62% zeros over all 1x1 weights of its part"),
    "int8": Verdict("dense", "dense", "has dtype int8; the sparse path supports floats only"),
    "stored-dense": Verdict("dense", "dense", "stored dense; as densify"),
}
