"""A search's front: by objectives, directions and limits."""

from edgesparse.measure.rows import ModelFile, Row, RuntimeInfo, Score
from edgesparse.measure.trials import SearchResult, Trial, direction_of, violation
from edgesparse.spec.search import Constraint


def row(accuracy=0.9, size=1000, direction="maximize", name="accuracy"):
    return Row(
        pipeline="p",
        device="d",
        runtime=RuntimeInfo(name="r", version="1"),
        delegate="xnnpack",
        threads=1,
        clock="wall",
        variant="v",
        status="ok",
        metrics=[
            Score(name=name, unit="%", direction=direction, host=accuracy, drop=0.01, samples=100)
        ],
        model=ModelFile(
            sha256="0" * 64,
            bytes=size,
            bytes_gzip=1,
            parameters=1,
            zeros=0,
            sparsity=0.0,
            storage="dense",
        ),
    )


def trial(name, *values, number=0, status="ok"):
    return Trial(name=name, number=number, status=status, values=list(values), row=row())


def swept(*trials, directions=("maximize", "minimize")):
    return SearchResult(
        pipeline="p",
        device="d",
        objectives=["accuracy", "bytes"],
        directions=list(directions),
        constraints=[],
        trials=list(trials),
        n_trials=len(trials),
    )


def test_the_front_is_what_no_other_one_beats():
    found = swept(
        trial("small", 0.8, 100),
        trial("good", 0.99, 900),
        trial("worse", 0.98, 950),
        trial("middle", 0.9, 500),
        trial("beaten", 0.9, 501),
    )
    assert [one.name for one in found.front] == ["small", "middle", "good"]
    assert found.dominated_by(found.trials[2]).name == "good"
    assert found.dominated_by(found.trials[0]) is None


def test_directions_count():
    found = swept(trial("a", 1.0, 1.0), trial("b", 2.0, 2.0), directions=("minimize", "minimize"))
    assert [one.name for one in found.front] == ["a"]


def test_of_equals_the_first_is_on_it_and_what_is_over_a_limit_or_failed_is_not():
    found = swept(
        trial("named", 0.9, 100, number=None),
        trial("same", 0.9, 100),
        trial("infeasible", 1.0, 1, status="infeasible"),
        Trial(name="failed", number=3, status="failed", reason="x"),
    )
    assert [one.name for one in found.front] == ["named"]


def test_which_way_is_good():
    assert direction_of("p50_ms", []) == "minimize"
    assert direction_of("speedup", []) == "maximize"
    assert direction_of("accuracy_drop", []) == "minimize"
    assert direction_of("accuracy", [row()]) == "maximize"
    assert direction_of("mae", [row(name="mae", direction="minimize")]) == "minimize"
    assert direction_of("mae", [row()]) is None


def test_how_far_a_row_is_beyond_a_limit():
    assert violation(Constraint(metric="bytes", max=900), row(size=1000)) == 100
    assert violation(Constraint(metric="bytes", max=1000), row(size=1000)) == 0
    assert violation(Constraint(metric="accuracy", min=0.95), row(accuracy=0.9)) > 0
    assert violation(Constraint(metric="p50_ms", max=1), row()) == 1.0, (
        "what has no value keeps no limit"
    )
