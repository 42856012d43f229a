"""Rows of results."""

from edgesparse.measure.rows import Layer, with_report


def test_a_delegates_report_is_added_to_the_layers_it_is_about():
    layers = [Layer(name="wide", operator="FULLY_CONNECTED"), Layer(name="", operator="SOFTMAX")]
    nodes = [("FULLY_CONNECTED", "taken", ""), ("SOFTMAX", "left", "operator not supported")]
    first, second = with_report(layers, nodes)
    assert (first.name, first.taken, first.why_left) == ("wide", True, "")
    assert (second.taken, second.why_left) == (False, "operator not supported")
    assert with_report(layers, nodes[:1]) == with_report(layers, ()) == layers
