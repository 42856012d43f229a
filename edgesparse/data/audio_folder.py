"""Recordings in one folder per class, as log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.data import (
    Dataset,
    Split,
    Tensor,
    X,
    Y,
    damaged_file_finder,
    transforms,
)
from edgesparse.data.splits import files_by_class, stratified_indices
from edgesparse.spec.errors import UsageError


def audio_folder(
    path: str,
    base: Path,
    sample_rate: int = 16_000,
    seconds: float = 1.0,
    mels: int = 40,
    window_ms: float = 32.0,
    hop_ms: float = 16.0,
    lowest_hz: float = 60.0,
    highest_hz: float | None = None,
    seed: int = 0,
) -> Dataset:
    """Load `path`/CLASS/RECORDING.wav, split 70/10/20 by class, as float32 [frames, mels, 1].

    Each recording is cut, or padded with silence, to `seconds`; the log-mel spectrogram is the
    natural logarithm of the energy in `mels` triangular bands (Davis and Mermelstein 1980) plus
    1e-6.

    Args:
        path: the folder, relative to the YAML file; WAV files of `sample_rate`, the first channel.
        window_ms, hop_ms: length of a frame of the spectrogram and distance of two.
        lowest_hz, highest_hz: range of the bands; up to half the sample rate by default.

    Raises:
        UsageError: the folder or an argument is invalid.
    """
    import tensorflow as tf

    names, files, labels = files_by_class(base / path, path, (".wav",))
    length = round(sample_rate * seconds)
    window, hop = (round(sample_rate * ms / 1000) for ms in (window_ms, hop_ms))
    if length < window:
        raise UsageError(f"audio-folder: {seconds} s is shorter than a window of {window_ms} ms")
    highest = highest_hz or sample_rate / 2
    raw = transforms.log_mel(sample_rate, length, window, hop, mels, lowest_hz, highest)
    frames, read = 1 + (length - window) // hop, _reader(raw)

    def split(indices: np.ndarray) -> Split:
        pairs = tf.data.Dataset.from_tensor_slices(([files[i] for i in indices], labels[indices]))
        return Split(len(indices), pairs.map(read, num_parallel_calls=tf.data.AUTOTUNE))

    train, validation, test = (split(indices) for indices in stratified_indices(labels, seed))
    inputs, targets = {X: Tensor((frames, mels, 1), "float32")}, {Y: Tensor((), "int64")}
    return Dataset(
        Path(path).name,
        inputs,
        targets,
        tuple(names),
        train,
        validation,
        test,
        transforms={X: raw},
        find_damaged=damaged_file_finder(files, base, lambda file: read(tf.constant(file), 0)),
    )


def _reader(transform: transforms.Transform) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a function that maps a file and its label to a spectrogram and the label."""
    import tensorflow as tf

    rate, length, mels = (transform[key] for key in ("sample_rate", "length", "mels"))
    window, hop = transform["window"], transform["hop"]
    size = 1 << (window - 1).bit_length()
    bands = tf.signal.linear_to_mel_weight_matrix(
        mels, size // 2 + 1, rate, transform["lowest_hz"], transform["highest_hz"]
    )

    def read(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sound, actual_rate = tf.audio.decode_wav(tf.io.read_file(file), 1, length)
        message = f"its sample rate is not {rate} Hz"
        check = tf.debugging.assert_equal(actual_rate, rate, message)
        with tf.control_dependencies([check] if check is not None else []):
            spectrum = tf.abs(tf.signal.stft(sound[:, 0], window, hop, size)) ** 2
        energy = tf.math.log(tf.matmul(spectrum, bands) + 1e-6)[..., None]
        return tf.ensure_shape(energy, (1 + (length - window) // hop, mels, 1)), label

    return read
