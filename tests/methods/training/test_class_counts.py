from dataclasses import replace

import numpy as np

from edgesparse import data
from edgesparse.data import Split
from edgesparse.methods.training.class_counts import label_counts, missing_classes
from edgesparse.methods.training.recipe import build_recipe
from edgesparse.spec.pipeline import Train
from tests.methods.training.test_fitting import network


def test_a_class_that_never_occurs_is_named():
    x, y = np.zeros((90, 12), np.float32), np.repeat([0, 1, 2], 30)
    found = data.from_arrays("toy", x, y)
    recipe = build_recipe(network(), found, Train())
    assert missing_classes(found, recipe) == []
    some = Split(10, found.test.samples.filter(lambda x, y: y == 1).take(10))
    lines = missing_classes(replace(found, test=some), recipe)
    assert lines == ["the classes 0, 2 never occur in the test data"]


def test_one_hot_targets_are_counted():
    x, y = np.zeros((30, 12), np.float32), np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], 10)]
    split = data.from_arrays("toy", x, y, class_names=["a", "b", "c"]).train
    assert label_counts(split, 3).sum() == split.count
