import numpy as np
import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.post_training.judgement import (
    as_json,
    from_json,
    judge,
    objection,
    uncertainty,
    worst,
)

random = np.random.default_rng(0)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


OUTPUTS = {
    "classes": softmax(3 * random.normal(size=(400, 10))).astype(np.float32),
    "pixels": softmax(3 * random.normal(size=(20, 8, 8, 3))).astype(np.float32),
    # A rare event: 2 % of the samples.
    "decisions": np.where(random.random((1000, 1)) < 0.02, 0.9, 0.05).astype(np.float32),
    "labels": random.random((300, 4)).astype(np.float32),
    "numbers": (5 + 3 * random.normal(size=(300, 2))).astype(np.float32),
    "logits": random.normal(size=(300, 20, 4)).astype(np.float32),
    "indices": random.integers(0, 9, (300,)),
}
KINDS = {
    "classes": "classes", "pixels": "classes", "decisions": "decisions", "labels": "decisions",
    "numbers": "numbers", "logits": "numbers", "indices": "classes",
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_equal_outputs_lose_nothing_and_a_constant_answer_fails_every_limit(name):
    expected = OUTPUTS[name]
    (same,) = judge({name: expected}, {name: expected.copy()})
    assert (same.kind, same.loss) == (KINDS[name], 0)
    values, counts = np.unique(expected.argmax(-1), return_counts=True)
    constants = [expected[0], expected.mean(0), np.median(expected, axis=0), 0 * expected[0]]
    for constant in constants:
        answer = np.broadcast_to(constant, expected.shape).astype(expected.dtype)
        assert worst(judge({name: expected}, {name: answer})).loss >= 1 - 1e-6
    if name == "classes":  # The best constant answer is the most frequent class.
        most = np.eye(10)[values[counts.argmax()]][None].repeat(400, 0)
        assert worst(judge({name: expected}, {name: most})).loss == pytest.approx(1)


def test_losses_are_named_by_what_they_mean():
    changed = OUTPUTS["classes"].copy()
    changed[:4] = changed[:4, ::-1]
    (loss,) = judge({"y": OUTPUTS["classes"]}, {"y": changed})
    assert loss.text == "4 of 400 answers changed"
    assert loss.interval[0] < loss.loss < loss.interval[1] < 0.05
    assert loss.described.startswith(f"{loss.text}; error 1.1% (95 %: 0.")
    rare = OUTPUTS["decisions"].copy()
    positives = np.flatnonzero(rare >= 0.5)
    rare[positives[:2]] = 0.1
    rare[np.flatnonzero(rare < 0.5)[-1]] = 0.8
    (loss,) = judge({"y": OUTPUTS["decisions"]}, {"y": rare})
    assert loss.text == f"2 of {len(positives)} detections missed, 1 new"
    assert loss.loss == pytest.approx(3 / len(positives))
    noisy = OUTPUTS["numbers"] + 0.3 * random.normal(size=(300, 2))
    (loss,) = judge({"y": OUTPUTS["numbers"]}, {"y": noisy})
    assert loss.loss == pytest.approx(0.01, rel=0.2)
    assert loss.text.startswith("error 1")
    assert from_json(as_json([loss])) == [loss]


def test_int8_probabilities_are_probabilities_and_few_samples_have_wide_intervals():
    coarse = np.round(OUTPUTS["classes"] * 256) / 256
    (loss,) = judge({"y": coarse}, {"y": coarse})
    assert loss.kind == "classes"
    (few,) = judge({"y": OUTPUTS["classes"][:10]}, {"y": OUTPUTS["classes"][:10]})
    assert few.interval[1] > 0.2


def test_constant_outputs_are_not_judged_unless_they_change():
    constant, varied = np.ones((50, 2), np.float32), OUTPUTS["numbers"][:50]
    (loss,) = judge({"a": constant, "b": varied}, {"a": constant, "b": varied})
    assert loss.output == "b"
    assert worst(judge({"a": constant, "b": varied}, {"a": 2 * constant, "b": varied})).loss == 1
    with pytest.raises(UsageError, match="the same for all samples"):
        judge({"a": constant}, {"a": constant})
    broken = np.where(np.arange(50)[:, None] == 3, np.nan, varied)
    assert worst(judge({"b": varied}, {"b": broken})).loss == 1


def changed_classes(count, wrong):
    answers = np.eye(4, dtype=np.float32)[np.arange(count) % 4]
    other = answers.copy()
    other[:wrong] = other[:wrong, ::-1]
    return judge({"y": answers}, {"y": other})


def test_the_interval_decides_and_few_samples_that_lose_nothing_are_accepted():
    assert objection(changed_classes(8, 0), 0.02) is None
    text = "8 samples that were not used cannot show less than 43.3%; about 260 would"
    assert uncertainty(changed_classes(8, 0), 0.02) == text
    enough = changed_classes(260, 0)
    assert objection(enough, 0.02) is uncertainty(enough, 0.02) is None
    # 1 % lost: within the limit on average, perhaps not for what comes.
    text = objection(changed_classes(400, 3), 0.02)
    assert text.startswith(
        "y: 3 of 400 answers changed; error 1.0% (95 %: 0.3% to 2.9%) can exceed"
    )
    assert text.endswith("--max-error 2.0%; 400 samples that were not used cannot show "
                         "that it does not; about 1,100 would")  # fmt: skip
    assert objection(changed_classes(1100, 8), 0.02) is None
    assert objection(changed_classes(400, 9), 0.02).endswith("exceeds --max-error 2.0%")
    noisy = OUTPUTS["numbers"] + 0.4 * random.normal(size=(300, 2))
    (loss,) = judge({"y": OUTPUTS["numbers"]}, {"y": noisy})
    assert objection([loss], 0.02) is None
    limit = (loss.loss + loss.interval[1]) / 2
    assert "about 1,300 would" in objection([loss], limit)


def test_a_wrong_pixel_of_many_is_no_wrong_sample():
    """Answers of a sample are independent as far as wrong ones are spread over samples."""
    expected = OUTPUTS["pixels"]
    spread = expected.copy()
    spread[np.arange(20), np.arange(20) % 8, 0] = spread[np.arange(20), np.arange(20) % 8, 0, ::-1]
    together = expected.copy()
    together[0] = together[0, ..., ::-1]
    (some,), (sample,) = (judge({"y": expected}, {"y": each}) for each in (spread, together))
    assert some.answers == 20 * 64
    assert 20 <= sample.answers < 40
    assert objection([some], 0.05) is None
    assert sample.interval[1] > 3 * sample.loss
