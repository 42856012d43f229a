import pytest
from rich.console import Console

from edgesparse.methods.choosing.curves import LayerCurve, Proposal, Sensitivity
from edgesparse.report.sensitivity import print_sensitivity


@pytest.mark.parametrize(
    ("sensitivity", "parts"),
    [
        (
            Sensitivity(0.9, (0.5, 0.9), (LayerCurve("a", "unstructured", 100, (0.89, 0.5)),)),
            ["accuracy 90.0 % on", "89.0", "50.0", "accuracy 89.0 % before", "maximum drop 2.0"],
        ),
        (  # An error: stored with its sign turned, printed without.
            Sensitivity(
                -45.5,
                (0.5, 0.9),
                (LayerCurve("a", "unstructured", 100, (-45.51, -80.25)),),
                "mae",
                "",
                "minimize",
            ),
            ["mae 45.5 on", "45.5", "80.2", "mae 45.5 before", "maximum drop 0.02"],
        ),
    ],
)
def test_metric_is_printed_with_its_name_and_sign(sensitivity, parts):
    console = Console(record=True, width=120)
    proposal = Proposal({"a": 0.5}, sensitivity.layers[0].accuracy[0])
    print_sensitivity("sparse", sensitivity, 0.02, proposal, console)
    text = console.export_text()
    for part in parts:
        assert part in text
    assert "right" not in text
    assert "-" not in text.replace("fine-tuning", "")
