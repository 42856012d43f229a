"""Notes on what the delegate took."""

from edgesparse.delegate.node_summary import summarize


def test_nodes_are_counted_and_those_that_are_left_named():
    taken = ("CONV_2D", "taken", "")
    assert summarize([taken, taken]) == "delegate edgesparse runs 2 of 2 nodes"
    left = [("ADD", "left", "broadcast"), ("operator 40", "left", "operator not supported")]
    assert summarize([taken, *left, left[0]]) == (
        "delegate edgesparse runs 1 of 4 nodes; not 2 ADD (broadcast), MEAN (operator not "
        "supported)"
    )
    assert summarize([("operator 9999", "left", "x")]).endswith("; not operator 9999 (x)")
