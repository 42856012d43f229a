import numpy as np
import pytest

from edgesparse import data
from edgesparse.data import raw
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Source

ROWS = "".join(f"{i},{'red' if i % 3 else 'blue'},{i % 2},{i * 2.5}\n" for i in range(60))
TABLE = "size,colour,kind,price\n" + ROWS


def load(folder, text=TABLE, **args):
    (folder / "t.csv").write_text(text)
    return data.load(Source(name="csv", args={"path": "t.csv", **args}), folder)


def test_numbers_are_standardized_and_texts_are_one_hot(tmp_path):
    dataset = load(tmp_path, target="price")
    assert dataset.input_shape == (4,)  # size, blue, red, kind
    assert dataset.class_names == ()
    x, y = data.arrays(dataset.train, 99)
    assert x["x"][:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert x["x"][:, 0].std() == pytest.approx(1, abs=1e-6)
    assert (x["x"][:, 1] + x["x"][:, 2] == 1).all()
    assert y["y"].dtype == np.float32


def test_text_targets_are_labels(tmp_path):
    dataset = load(tmp_path, target="colour", features=["size"], standardize=False)
    assert dataset.class_names == ("blue", "red")
    x, y = data.arrays(dataset.test, 99)
    assert ((x["x"][:, 0] % 3 > 0) == (y["y"] == 1)).all()
    assert load(tmp_path, target="kind", categorical=["kind"]).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        (TABLE, {"target": "prise"}, "no column 'prise'; did you mean 'price'"),
        (TABLE + "1,2\n", {"target": "price"}, "row 62 has 2 values for 4 columns"),
        (
            TABLE + "many,red,1,3\n",
            {"target": "price"},
            "row 62: expected a number in column 'size', got 'many'",
        ),
        ("a,b\n", {"target": "a"}, "needs a line of column names and rows"),
        ("a,b\n1,x\n2,x\n", {"target": "b"}, "the target 'b' has 1 classes; 2 to 1000"),
    ],
)
def test_errors_name_row_and_column(tmp_path, text, args, message):
    with pytest.raises(UsageError) as error:
        load(tmp_path, text, **args)
    assert message in str(error.value)
    with pytest.raises(UsageError, match="no such file"):
        data.load(Source(name="csv", args={"path": "no.csv", "target": "a"}), tmp_path)


def test_split_by_time_with_windows(tmp_path):
    rows = "".join(f"{i},{i * 2}\n" for i in range(100))
    read = {"target": "y", "split": "time", "standardize": False}
    dataset = load(tmp_path, "t,y\n" + rows, **read, window=4)
    assert dataset.input_shape == (4, 1)
    splits = [data.arrays(s, 100) for s in (dataset.train, dataset.validation, dataset.test)]
    seen = [sorted({int(t) for t in x["x"].flat}) for x, _ in splits]
    assert seen == [list(range(70)), list(range(70, 80)), list(range(80, 100))]
    for x, y in splits:
        np.testing.assert_array_equal(np.diff(x["x"][..., 0], axis=1), 1)
        np.testing.assert_array_equal(y["y"], 2 * x["x"][:, -1, 0])
    with open(tmp_path / "recent.csv", "w") as file:
        file.write("y,t\n" + "".join(f"0,{t}\n" for t in range(7, 12)))
    sample = raw.read(str(tmp_path / "recent.csv"), dataset.transforms["x"], (1, 4, 1))
    np.testing.assert_array_equal(sample[0, :, 0], [7, 8, 9, 10])
    with pytest.raises(UsageError, match="window must be a number of rows, with 'split: time'"):
        load(tmp_path, target="price", window=4)
    with pytest.raises(UsageError, match="split: must be 'random' or 'time', not 'rime'"):
        load(tmp_path, target="price", split="rime")
