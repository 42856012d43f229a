import numpy as np
import pytest

from edgesparse import data
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Source


def test_digits_split_is_stratified_and_reproducible(tmp_path):
    source = Source(name="digits", args={"input_shape": [16, 16, 3]})
    first, second = data.load(source, tmp_path), data.load(source, tmp_path)
    sizes = [first.train.count, first.validation.count, first.test.count]
    assert sum(sizes) == 1797
    assert sizes[2] == 360
    x, y = (next(iter(v.values())) for v in data.arrays(first.test, 10_000))
    assert x.shape == (360, 16, 16, 3)
    assert 0 <= x.min() < x.max() <= 1
    assert np.bincount(y).min() >= 34
    np.testing.assert_array_equal(data.arrays(second.test, 10_000)[0]["x"], x)


def test_splits_are_disjoint_and_calibration_samples_are_from_training(tmp_path):
    rows = np.arange(200, dtype=np.float32)[:, None]
    dataset = data.from_arrays("d", rows, np.arange(200) % 4)
    seen = [set(data.arrays(s, 999)[0]["x"].ravel()) for s in (dataset.train, dataset.validation)]
    test = set(data.arrays(dataset.test, 999)[0]["x"].ravel())
    assert not seen[0] & seen[1]
    assert not seen[0] & test
    assert set(data.representative(dataset, 50)["x"].ravel()) <= seen[0]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), "x has 3 samples but y has 2 samples"),
        (np.zeros((3, 2)), np.zeros(3), "3 samples are too few for three splits"),
        (
            np.zeros((3, 2)),
            np.array([0.0, np.nan, 1.0]),
            "y contains NaN or inf; first at sample 1",
        ),
        (
            np.full((3, 2), np.inf),
            np.zeros(3, int),
            r"x contains NaN or inf; first at sample 0, index \[0\]",
        ),
        (np.zeros((3, 2)), np.array([-1, 0, 1]), "labels must count from 0; the lowest is -1"),
        (np.zeros((0, 2)), np.zeros(0, int), "x is empty"),
        (np.zeros(3), np.zeros(3, int), r"x has shape \(3,\); it must be \[samples, ...\]"),
        (np.array([["a"], ["b"]]), np.zeros(2, int), "x must be numeric, not"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "cannot be split by class"),
    ],
)
def test_invalid_arrays(x, y, message):
    with pytest.raises(EdgesparseError, match=message):
        data.from_arrays("d", x, y)


@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_samples_are_from_all_classes_of_data_in_their_order(classes):
    y = np.repeat(np.arange(classes), 60)
    x = y[:, None].astype(np.float32)
    splits = data.from_splits("d", (x, y), (x[::9], y[::9]), (x[::7], y[::7]))
    seen = data.representative(splits, 20)["x"].ravel()
    assert len(seen) == 20
    assert np.ptp(np.bincount(seen.astype(int))) <= 1
    timed = data.from_arrays(
        "d", np.arange(200, dtype=np.float32)[:, None], np.zeros(200, int), split="time"
    )
    last = data.representative(timed, 10)["x"].max()
    assert last == timed.train.count - 1


def test_invalid_labels():
    x = np.zeros((100, 2))
    with pytest.raises(EdgesparseError, match=r"labels go up to 100000000; .*use float targets"):
        data.from_arrays("d", x, np.arange(100) % 2 * 10**8)
    with pytest.raises(
        EdgesparseError,
        match="up to 10, but there are 10 class names; labels must count from 0: use y - 1",
    ):
        data.from_arrays("d", x, 1 + np.arange(100) % 10, [str(i) for i in range(10)])


def test_split_by_time_leaves_a_gap():
    x = np.arange(100, dtype=np.float32)[:, None]
    dataset = data.from_arrays("d", x, x[:, 0], split="time", gap=3)
    train, validation, test = (
        data.arrays(split, 100)[0]["x"].ravel().tolist()
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    assert (train, validation) == (list(range(70)), list(range(73, 80)))
    assert test == list(range(83, 100))
    with pytest.raises(EdgesparseError, match="100 samples are too few for a gap of 10"):
        data.from_arrays("d", x, x[:, 0], split="time", gap=10)


def test_ref_must_return_a_dataset(tmp_path):
    (tmp_path / "mine_data.py").write_text(
        "import numpy as np\nfrom edgesparse.data import from_arrays\n"
        "def load(n):\n"
        "    return from_arrays('mine', np.zeros((n, 3)), np.arange(n) % 2, ['no', 'yes'])\n"
        "def wrong():\n    return 3\n"
        "def broken():\n    raise ValueError('no such camera')\n"
    )
    dataset = data.load(Source(ref="mine_data.py:load", args={"n": 50}), tmp_path)
    assert dataset.class_names == ("no", "yes")
    with pytest.raises(UsageError, match=r"returned int; it must return an edgesparse.data.Data"):
        data.load(Source(ref="mine_data.py:wrong"), tmp_path)
    with pytest.raises(UsageError, match="no such camera"):
        data.load(Source(ref="mine_data.py:broken"), tmp_path)
