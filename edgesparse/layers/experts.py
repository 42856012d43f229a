"""Mixture of experts: many small networks, of which each sample uses a few."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("edgesparse")
class Experts(tf.keras.layers.Layer):
    """Networks with one hidden layer each; a router chooses `top_k` of them for each sample and
    weights their outputs (Shazeer et al. 2017, arXiv 1701.06538).

    Input: float32 [batch, width], or [batch, length, width], for which experts are chosen once per
    sample, by the mean over the length (Kudugunta et al. 2021, arXiv 2110.03742). Output: the same
    shape with `units` at the end. With batch size 1 only the weights of chosen experts are read.

    Args:
        units: number of output values.
        hidden: width of each expert's hidden layer.
        experts: number of experts.
        top_k: number of experts per sample.
        balance: weight of the load balancing loss (Fedus et al. 2021, arXiv 2101.03961).
        noise: standard deviation of the noise on the router's logits in training.
        compute: `chosen`, or `all`: compute every expert, as without the gather.
    """

    def __init__(
        self,
        units: int,
        hidden: int,
        experts: int = 16,
        top_k: int = 2,
        activation: Any = "relu",
        balance: float = 0.1,
        noise: float = 1.0,
        compute: str = "chosen",
        **more: Any,
    ) -> None:
        super().__init__(**more)
        if not 1 <= top_k <= experts:
            raise ValueError(f"{self.name}: top_k is {top_k}, of {experts} experts")
        if compute not in ("chosen", "all"):
            raise ValueError(f"{self.name}: compute is 'chosen' or 'all', not {compute!r}")
        self.units, self.hidden, self.experts = int(units), int(hidden), int(experts)
        self.top_k, self.balance, self.noise, self.compute = int(top_k), balance, noise, compute
        self.activation = tf.keras.activations.get(activation)

    def build(self, shape: Any) -> None:
        width, count = int(shape[-1]), self.experts
        add = self.add_weight
        self.router = add("router", (width, count), initializer="glorot_uniform")
        self.kernel_in = add("kernel_in", (count, width, self.hidden), initializer=_each)
        self.bias_in = add("bias_in", (count, self.hidden), initializer="zeros")
        self.kernel_out = add("kernel_out", (count, self.hidden, self.units), initializer=_each)
        self.bias_out = add("bias_out", (count, self.units), initializer="zeros")
        super().build(shape)

    def route(self, x: Any) -> Any:
        """Return the router's logits [batch, experts] for inputs as above."""
        pooled = x if len(x.shape) == 2 else tf.reduce_mean(x, 1)
        return tf.matmul(pooled, self.router)

    def call(self, x: Any, training: Any = None) -> Any:
        answers = self.route(x)
        if training and self.noise:
            answers += self.noise * tf.random.normal(tf.shape(answers), seed=7)
        best, chosen = tf.math.top_k(answers, self.top_k)
        gates = tf.nn.softmax(best)
        if training and self.balance:
            self.add_loss(self.balance * self._imbalance(answers, chosen))
        single = x.shape[0] == 1 and not training
        if single and self.compute == "chosen":
            return self._of_chosen(x, gates, chosen)
        return self._of_all(x, gates, chosen)

    def _imbalance(self, answers: Any, chosen: Any) -> Any:
        """Return 1 for equal use of all experts, up to `experts` where only one is used."""
        used = tf.reduce_mean(tf.one_hot(chosen, self.experts), [0, 1])
        probability = tf.reduce_mean(tf.nn.softmax(answers), 0)
        return self.experts * tf.reduce_sum(used * probability)

    def _of_all(self, x: Any, gates: Any, chosen: Any) -> Any:
        # Rows of a unit matrix: TFLite's ONE_HOT in int8 has other values than 0 and 1.
        units = tf.gather(tf.eye(self.experts), chosen)
        spread = tf.reduce_sum(units * gates[..., None], 1)
        flat = x if len(x.shape) == 3 else x[:, None, :]
        between = tf.matmul(flat[:, None], self.kernel_in) + self.bias_in[:, None]
        outputs = tf.matmul(self.activation(between), self.kernel_out) + self.bias_out[:, None]
        total = tf.reduce_sum(outputs * spread[:, :, None, None], 1)
        return total if len(x.shape) == 3 else tf.squeeze(total, 1)

    def _of_chosen(self, x: Any, gates: Any, chosen: Any) -> Any:
        """Compute the chosen experts, with batch size 1: [1, width] or [1, length, width]."""
        which = chosen[0]
        flat = x if len(x.shape) == 3 else x[:, None, :]
        into, out = tf.gather(self.kernel_in, which), tf.gather(self.kernel_out, which)
        bias_in, bias_out = tf.gather(self.bias_in, which), tf.gather(self.bias_out, which)
        between = self.activation(tf.matmul(flat, into) + bias_in[:, None])
        outputs = tf.matmul(between, out) + bias_out[:, None]
        total = tf.reduce_sum(outputs * tf.reshape(gates, (self.top_k, 1, 1)), 0, keepdims=True)
        return total if len(x.shape) == 3 else tf.squeeze(total, 1)

    def active_weights(self) -> int:
        """Return the number of weights that an inference reads."""
        total = sum(int(tf.size(w)) for w in self.weights)
        router = int(tf.size(self.router))
        return router + (total - router) * self.top_k // self.experts

    def get_config(self) -> dict[str, Any]:
        names = ("units", "hidden", "experts", "top_k", "balance", "noise", "compute")
        activation = tf.keras.activations.serialize(self.activation)
        settings = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **settings, "activation": activation}


@tf.keras.utils.register_keras_serializable("edgesparse")
def _each(shape: Any, dtype: Any = None, **more: Any) -> Any:
    """Initialize each expert by Glorot's uniform distribution: [experts, inputs, outputs]."""
    limit = (6 / (shape[-2] + shape[-1])) ** 0.5
    return tf.random.uniform(shape, -limit, limit, dtype or tf.float32)
