"""What is measured says what it is."""

import pytest

from edgesparse.commands.candidates import within_macs
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.rows import ModelFile, RuntimeInfo
from edgesparse.spec.pipeline import Pipeline

PIPELINE = Pipeline.model_validate(
    {
        "name": "p",
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
        "variants": {
            "dense": {},
            "less": {"sparsify": {"method": "channels", "macs": 0.5}},
        },
    }
)


def candidate(variant, macs):
    file = ModelFile(sha256="0", bytes=1, bytes_gzip=1, parameters=1, zeros=0, sparsity=0.0,
                     storage="dense", macs=macs)  # fmt: skip
    return Candidate(variant, RuntimeInfo(name="r", version="1"), "xnnpack", 1, model=file)


@pytest.mark.parametrize(
    ("macs", "noted"), [(500, False), (510, False), (769, True), (None, False)]
)
def test_a_file_with_more_multiply_accumulates_than_were_asked_for_says_so(macs, noted):
    both = [candidate("dense", 1000), candidate("less", macs)]
    notes = within_macs(both[1], both, PIPELINE).notes
    assert within_macs(both[0], both, PIPELINE).notes == ()
    assert bool(notes) == noted
    if noted:
        assert notes[0].endswith("of dense; the file has 77%")
