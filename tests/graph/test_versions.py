from edgesparse.graph.versions import library_versions


def test_versions_are_read_without_importing():
    result = library_versions()
    assert {"python", "edgesparse", "tensorflow", "numpy"} <= set(result)
