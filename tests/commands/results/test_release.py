"""The command that runs a release on its device."""

import pytest

from edgesparse.commands.results.release import _files
from edgesparse.data import transforms


@pytest.mark.parametrize(
    ("of_inputs", "files"),
    [
        ([None], "INPUT.npy"),
        ([transforms.image((8, 8, 1)), None], "INPUT.png INPUT.npy"),
        ([{"kind": "text", "file": "txt"}] * 2, '"A TEXT"'),
        ([{"kind": "text", "file": "txt"}, None], "INPUT.txt INPUT.npy"),
    ],
)
def test_every_input_is_a_file(of_inputs, files):
    assert _files({str(i): transform for i, transform in enumerate(of_inputs)}) == files
