"""Attention whose cost grows with the length, not with its square."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_NEVER = -30.0
"""Added to the scores of masked positions: exp(-30) is negligible in float32, and the range leaves
int8 a scale that resolves the other scores."""
_NEIGHBOURS = 3


@tf.keras.utils.register_keras_serializable("edgesparse")
class SparseAttention(tf.keras.layers.Layer):
    """Self-attention of float32 [batch, length, width] in blocks of half a window: each token
    attends to its block and both neighbours, by batched products of dense blocks.

    - `window`: local attention (Beltagy et al. 2020, arXiv 2004.05150). The length is a multiple of
      half of it; the first and last block attend to the two next to them. 0: full attention, with
      the same weights.
    - `global_tokens`: number of first tokens that attend to all, and are attended by all.
    - `random_blocks`: number of further blocks for each block, drawn by `seed` (Zaheer et al. 2020,
      arXiv 2007.14062).
    - `stride`: windows of every stride-th token (dilated, Beltagy et al. 2020); the length is a
      multiple of stride times half a window; excludes global and random tokens.

    Inputs: the tokens, and with padding a mask [batch, length], 1 for a token.
    """

    def __init__(
        self,
        heads: int,
        key_dim: int,
        window: int = 64,
        global_tokens: int = 0,
        random_blocks: int = 0,
        stride: int = 1,
        seed: int = 7,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        if window % 2 or window < 0:
            raise ValueError(
                f"{self.name}: window must be even, or 0 for full attention, not {window}"
            )
        if stride > 1 and (global_tokens or random_blocks):
            raise ValueError(f"{self.name}: stride excludes global_tokens and random_blocks")
        self.heads, self.key_dim, self.window = int(heads), int(key_dim), int(window)
        self.global_tokens, self.random_blocks = int(global_tokens), int(random_blocks)
        self.stride, self.seed = int(stride), int(seed)

    def build(self, shape: Any) -> None:
        shape = shape[0] if isinstance(shape, list) else shape
        length, width = shape[1], int(shape[-1])
        inner = self.heads * self.key_dim
        self.table: np.ndarray | None = None
        if self.window and length is not None:
            self.table = self._table(int(length))
        for name in ("query", "key", "value"):
            setattr(self, name, self.add_weight(name, (width, inner), initializer="glorot_uniform"))
            bias = self.add_weight(f"{name}_bias", (inner,), initializer="zeros")
            setattr(self, f"{name}_bias", bias)
        self.output_kernel = self.add_weight("output", (inner, width), initializer="glorot_uniform")
        self.output_bias = self.add_weight("output_bias", (width,), initializer="zeros")
        super().build(shape)

    def _table(self, length: int) -> np.ndarray:
        """Return the blocks that each block attends to, int [blocks, attended blocks]."""
        block = self.window // 2
        if length % (block * self.stride) or length < _NEIGHBOURS * block * self.stride:
            raise ValueError(
                f"{self.name}: the length {length} must be a multiple of {block * self.stride}, "
                f"and at least {_NEIGHBOURS * block * self.stride}"
            )
        count = length // block // self.stride
        first = np.clip(np.arange(count) - 1, 0, count - _NEIGHBOURS)
        local = first[:, None] + np.arange(_NEIGHBOURS)
        if not self.random_blocks:
            return local
        random = np.random.default_rng(self.seed)
        # Not the neighbours and the blocks of global tokens, which are attended already.
        ahead = -(-self.global_tokens // block)
        drawn = []
        for neighbours in local:
            free = np.setdiff1d(np.arange(ahead, count), neighbours)
            if len(free) < self.random_blocks:
                raise ValueError(
                    f"{self.name}: {count} blocks are too few for {self.random_blocks} random ones"
                )
            drawn.append(np.sort(random.choice(free, self.random_blocks, replace=False)))
        return np.concatenate([local, np.array(drawn)], axis=1)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        x, padding = (inputs[0], inputs[1]) if isinstance(inputs, (list, tuple)) else (inputs, None)
        if padding is None and mask is not None:
            padding = mask[0] if isinstance(mask, (list, tuple)) else mask
        added = None if padding is None else (1.0 - tf.cast(padding, tf.float32)) * _NEVER
        query, key, value = (
            self._split(tf.matmul(x, getattr(self, name)) + getattr(self, f"{name}_bias"))
            for name in ("query", "key", "value")
        )
        query *= self.key_dim**-0.5
        if added is not None:  # [batch * heads, length]
            added = tf.reshape(_copies(added, self.heads), (-1, added.shape[1]))
        if self.table is None:
            attended = self._attend(query, key, value, None if added is None else added[:, None])
        else:
            attended = self._in_blocks(query, key, value, added)
        return tf.matmul(self._joined(attended), self.output_kernel) + self.output_bias

    def _split(self, x: Any) -> Any:
        """Split [batch, length, heads * dim] into [batch * heads, length, dim]."""
        length = x.shape[1]
        x = tf.reshape(x, (-1, length, self.heads, self.key_dim))
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, length, self.key_dim))

    def _joined(self, x: Any) -> Any:
        length = x.shape[1]
        x = tf.reshape(x, (-1, self.heads, length, self.key_dim))
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, length, self.heads * self.key_dim))

    @staticmethod
    def _attend(query: Any, key: Any, value: Any, added: Any) -> Any:
        scores = tf.matmul(query, key, transpose_b=True)
        if added is not None:
            scores += added
        return tf.matmul(tf.nn.softmax(scores), value)

    def _in_blocks(self, query: Any, key: Any, value: Any, added: Any) -> Any:
        """Attend in blocks; tensors [sequences, length, dim], added [sequences, length] or None."""
        assert self.table is not None
        count, some = self.table.shape
        length, block, dim = query.shape[1], self.window // 2, self.key_dim
        shaped = [self._phases(x, count, block) for x in (query, key, value)]
        keys, values = (self._gathered(x, some) for x in shaped[1:])
        extra = None
        if added is not None:
            phases = self._phases(added[..., None], count, block)
            extra = tf.transpose(self._gathered(phases, some), (0, 1, 3, 2))
        if self.global_tokens:
            keys, values, extra = self._with_global(key, value, keys, values, added, extra)
        attended = self._attend(shaped[0], keys, values, extra)
        attended = self._back(attended, length, dim)
        if not self.global_tokens:
            return attended
        first = query[:, : self.global_tokens]
        whole = self._attend(first, key, value, None if added is None else added[:, None])
        return tf.concat([whole, attended[:, self.global_tokens :]], 1)

    def _phases(self, x: Any, count: int, block: int) -> Any:
        """Reshape [sequences, length, dim] to [sequences * stride, blocks, block, dim]."""
        dim = x.shape[-1]
        if self.stride > 1:
            x = tf.reshape(x, (-1, count * block, self.stride, dim))
            x = tf.transpose(x, (0, 2, 1, 3))
        return tf.reshape(x, (-1, count, block, dim))

    def _back(self, x: Any, length: int, dim: int) -> Any:
        if self.stride > 1:
            x = tf.reshape(x, (-1, self.stride, length // self.stride, dim))
            x = tf.transpose(x, (0, 2, 1, 3))
        return tf.reshape(x, (-1, length, dim))

    def _gathered(self, x: Any, some: int) -> Any:
        """Gather the blocks that each block attends to from [sequences, blocks, block, dim]."""
        assert self.table is not None
        count, block, dim = x.shape[1:]
        gathered = tf.gather(x, self.table.reshape(-1), axis=1)
        return tf.reshape(gathered, (-1, count, some * block, dim))

    def _with_global(
        self, key: Any, value: Any, keys: Any, values: Any, added: Any, extra: Any
    ) -> tuple[Any, Any, Any]:
        """Append the global tokens to each block's; those that it has already are masked."""
        assert self.table is not None
        count, some = self.table.shape
        block, few = self.window // 2, self.global_tokens

        def beside(blocks: Any, all_of: Any) -> Any:
            return tf.concat([blocks, _copies(all_of[:, :few], count)], 2)

        places = (self.table[..., None] * block + np.arange(block)).reshape(count, some * block)
        twice = np.where(places < few, _NEVER, 0.0).astype(np.float32)
        fixed = np.concatenate([twice, np.zeros((count, few), np.float32)], 1)[None, :, None]
        if extra is not None:
            first = _copies(added[:, None, :few], count)
            extra = tf.maximum(tf.concat([extra, first], 3) + fixed, _NEVER)
        else:
            extra = tf.constant(fixed)
        return beside(keys, key), beside(values, value), extra

    def attends(self, length: int) -> np.ndarray:
        """Return bool [length, length]: True where a token (row) attends to another."""
        if not self.window:
            return np.ones((length, length), bool)
        table, block = self._table(length), self.window // 2
        mask = np.zeros((length, length), bool)
        for phase in range(self.stride):
            for number, blocks in enumerate(table):
                rows = (np.arange(block) + number * block) * self.stride + phase
                columns = (blocks[:, None] * block + np.arange(block)).ravel()
                mask[np.ix_(rows, columns * self.stride + phase)] = True
        mask[: self.global_tokens] = mask[:, : self.global_tokens] = True
        return mask

    def get_config(self) -> dict[str, Any]:
        names = ("heads", "key_dim", "window", "global_tokens", "random_blocks", "stride", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _copies(x: Any, count: int) -> Any:
    """Repeat [batch, ...] to [batch, count, ...]; by a gather, since TILE lacks int16."""
    return tf.gather(x[:, None], np.zeros(count, np.int32), axis=1)
