import pytest
from rich.console import Console

from edgesparse.methods.choosing.curves import LayerCurve, Proposal, Sensitivity
from edgesparse.report.sensitivity import print_sensitivity


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Sensitivity(0.9, (0.5, 0.9), (LayerCurve("a", "unstructured", 100, (0.89, 0.5)),)),
            ["accuracy 90.0 % on", "89.0", "50.0", "accuracy 89.0 % before", "at most 2.0 may"],
        ),
        (  # An error: kept with its sign turned, shown as it is.
            Sensitivity(
                -45.5,
                (0.5, 0.9),
                (LayerCurve("a", "unstructured", 100, (-45.51, -80.25)),),
                "mae",
                "",
                "minimize",
            ),
            ["mae 45.5 on", "45.5", "80.2", "mae 45.5 before", "at most 0.02 may"],
        ),
    ],
)
def test_the_metric_is_named_and_shown_as_it_is(found, said):
    console = Console(record=True, width=120)
    proposal = Proposal({"a": 0.5}, found.layers[0].accuracy[0])
    print_sensitivity("sparse", found, 0.02, proposal, console)
    text = console.export_text()
    for part in said:
        assert part in text
    assert "right" not in text
    assert "-" not in text.replace("fine-tuning", "")
