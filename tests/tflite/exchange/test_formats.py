"""Files of PyTorch and ONNX: which are converted, and what the others need."""

import pickle
import zipfile

import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.exchange.formats import format_of


def written(path, *members):
    """Write an archive with empty members."""
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "")
    return path


def test_a_program_and_an_onnx_file_are_recognized_and_others_are_not(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert format_of(tmp_path / "m.onnx") == "onnx"
    members = ("m/archive_format", "m/models/model.json", "m/data/weights/weight_0")
    assert format_of(written(tmp_path / "m.pt2", *members)) == "torch"
    assert format_of(written(tmp_path / "m.pt", *members)) == "torch"
    legacy = written(tmp_path / "old.pt2", "version", "serialized_exported_program.json")
    assert format_of(legacy) == "torch"
    for other in ("m.tflite", "m.keras", "folder"):
        assert format_of(tmp_path / other) is None


@pytest.mark.parametrize(
    ("name", "members", "cause"),
    [
        (
            "whole.pt",
            ["whole/data.pkl", "whole/data/0"],
            "is a pickle: it has no graph, and reading",
        ),
        ("script.pt", ["s/data.pkl", "s/code/__torch__.py"], "is TorchScript"),
        ("weights.safetensors", [], "has weights and no graph"),
        ("other.pt2", ["x/data.pkl"], "is not a program of torch.export"),
    ],
)
def test_a_file_without_a_program_gets_the_lines_that_export_one(tmp_path, name, members, cause):
    path = written(tmp_path / name, *members)
    with pytest.raises(UsageError) as caught:
        format_of(path)
    assert f"{path} {cause}" in str(caught.value)
    assert f'torch.export.save(program, "{path.stem}.pt2")' in str(caught.value)


def test_a_pickle_is_not_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UsageError, match="can run any code"):
        format_of(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="no such file"):
        format_of(tmp_path / "missing.onnx")


def test_a_damaged_program_is_no_program(tmp_path):
    members = [f"m/data/weights/weight_{number}" for number in range(9)]
    content = written(tmp_path / "m.pt2", "m/models/model.json", *members).read_bytes()
    assert format_of(tmp_path / "m.pt2") == "torch"
    for damaged in (content[:-40], content.replace(b"PK\x01\x02", b"PK\x01\x00"), b"PK", b""):
        (tmp_path / "m.pt2").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"is not a program of torch\.export"):
            format_of(tmp_path / "m.pt2")
