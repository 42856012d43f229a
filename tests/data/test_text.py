"""Texts as counts and as sequences, here and on a device."""

import numpy as np
import pytest

from edgesparse import data
from edgesparse.data import raw
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Source

GOOD, BAD = "good fine lovely day", "bad poor awful night"


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    rows = ["text\tlabel"]
    for number in range(200):
        words = (GOOD if number % 2 else BAD).split()
        chosen = [*random.choice(words, 5), f"rare{number}", "The", "the"]
        rows.append(f"{' '.join(chosen)}.\t{'good' if number % 2 else 'bad'}")
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def load(folder, **args):
    return data.load(Source(name="text", args={"path": "t.tsv", "length": 8, **args}), folder)


def test_counts(folder):
    dataset = load(folder, min_df=2)
    assert dataset.class_names == ("bad", "good")
    x, y = data.arrays(dataset.train, 200)
    words = dataset.transforms["ids"]["words"]
    assert set(words) == {*GOOD.split(), *BAD.split(), "the"}  # The rare ones are in one text each.
    assert words[0] == "the"
    assert x["ids"].dtype == np.int32
    assert x["counts"].dtype == np.float32
    assert x["counts"].sum(axis=1).tolist() == [7.0] * len(y["y"])
    for ids, counts, label in zip(x["ids"], x["counts"], y["y"], strict=True):
        present = {words[i] for i, count in zip(ids, counts, strict=True) if count}
        assert present <= {*(GOOD if label else BAD).split(), "the"}


def test_the_vocabulary_is_of_the_training_texts_only(folder):
    dataset = load(folder)
    rare = {word for word in dataset.transforms["ids"]["words"] if word.startswith("rare")}
    assert len(rare) == dataset.train.count
    assert load(folder, vocabulary=3).transforms["ids"]["size"] == 3


def test_tokens_keep_their_order(folder):
    dataset = load(folder, form="tokens", min_df=2)
    (x,) = data.arrays(dataset.test, 5)[0].values()
    transform = dataset.transforms["tokens"]
    assert transform["size"] == len(transform["words"]) + 2
    assert x.shape == (5, 8)
    assert (x[:, 5] == 1).all()  # The rare word, unknown.
    assert (x[:, 6] == 2).all()  # The most frequent of all.
    short, _ = raw.encode_text("good", transform)
    assert short[1:] == [0] * 7


@pytest.mark.parametrize(
    "args", [{}, {"form": "tokens"}, {"tf_idf": True}, {"hashing": True, "vocabulary": 50},
             {"form": "tokens", "hashing": True, "vocabulary": 50},
             {"hashing": True, "tf_idf": True, "vocabulary": 50}]
)  # fmt: skip
def test_device_encodes_texts_alike(folder, args, tmp_path):
    dataset = load(folder, **args)
    lines = (folder / "t.tsv").read_text().splitlines()[1:]
    texts = [line.split("\t")[0] for line in lines]
    x, _ = data.arrays(dataset.test, 40)
    size = dataset.transforms[next(iter(x))]["size"]
    for name, values in x.items():
        transform = dataset.transforms[name]
        (tmp_path / "one.txt").write_text(texts[0])
        assert np.array_equal(
            raw.read(str(tmp_path / "one.txt"), transform, (1, 8)),
            raw.read(texts[0], transform, (1, 8)),
        )
        encoded = np.stack([raw.read(text, transform, (1, 8))[0] for text in texts])
        assert all((encoded == row).all(axis=1).any() for row in values)
        if name != "counts":
            assert values.max() < size
    if args.get("tf_idf"):
        norms = np.linalg.norm(x["counts"], axis=1)
        np.testing.assert_allclose(norms, 1.0, atol=1e-5)


def test_folders_of_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "texts" / name / f"{number}.txt").write_text(f"{name} {number}")
    dataset = data.load(Source(name="text", args={"path": "texts", "length": 4}), tmp_path)
    assert dataset.class_names == ("a", "b")
    assert dataset.train.count == 16


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"path": "no.csv"}, "no such file or folder"),
        ({"text": "texd"}, "no column 'texd'; did you mean 'text'?"),
        ({"form": "words"}, "form must be 'counts' or 'tokens'"),
        ({"form": "tokens", "tf_idf": True}, "tf_idf needs form 'counts'"),
        ({"min_df": 500}, "no word occurs in 500 training texts"),
    ],
)
def test_errors(folder, args, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        load(folder, **args)
