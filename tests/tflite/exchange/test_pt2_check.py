"""What of a .pt2 file torch may read; files that would run code are refused before."""

import json
import zipfile

import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.exchange.pt2_check import checked_copy

SPEC = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [
    {"type": "builtins.tuple", "context": "null",
     "children_spec": [{"type": None, "context": None, "children_spec": []}]},
    {"type": "builtins.dict", "context": '["mask"]', "children_spec": []}]}])  # fmt: skip
SYMBOL = "Symbol('s31', positive=True, integer=True)"
WEIGHT = {"path_name": "weight_0", "use_pickle": False, "tensor_meta": {"device": {"type": "cpu"}}}


def program(**changes):
    """A graph like torch.export's, with some of its texts changed."""
    texts = {
        "target": "torch.ops.aten.conv2d.default",
        "name": "conv2d",
        "expr_str": SYMBOL,
        "in_spec": SPEC,
        "guards_code": "L['x'].size()[0] <= 16",
        "as_string": "bij,bjk->bik",
        "type": "cpu",
        **changes,
    }
    node = {
        "target": texts["target"],
        "inputs": [{"name": "equation", "arg": {"as_string": texts["as_string"]}}],
        "metadata": {"stack_trace": 'File "m.py", in forward\n  x = self.layers[0](x)'},
        "name": texts["name"],
    }
    size = {"as_expr": {"expr_str": texts["expr_str"]}}
    values = {"x": {"sizes": [size], "device": {"type": texts["type"], "index": None}}}
    return {
        "graph_module": {
            "graph": {"nodes": [node], "tensor_values": values},
            "module_call_graph": [{"fqn": "layers.0", "signature": {"in_spec": texts["in_spec"]}}],
        },
        "guards_code": [texts["guards_code"]],
        "range_constraints": {"s31": {"min_val": 1, "max_val": 512}},
        "torch_version": "2.13.0+cpu",
    }


def archive(path, graph=None, weight=WEIGHT, more=()):
    with zipfile.ZipFile(path, "w") as file:
        config = json.dumps({"config": {"conv.weight": weight}})
        file.writestr("m/data/weights/model_weights_config.json", config)
        file.writestr("m/data/weights/weight_0", bytes(range(99)))
        file.writestr("m/models/model.json", json.dumps(graph or program()))
        for name, text in more:
            file.writestr(name, text)
    return path


def refused(path, tmp_path):
    with pytest.raises(UsageError) as caught:
        checked_copy(path, tmp_path / "copy.pt2")
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_a_program_of_plain_tensors_is_copied_without_other_members(tmp_path):
    more = [("m/archive_format", "pt2"), ("m/.data/version", "6"), ("m/extra/notes", "x")]
    checked_copy(archive(tmp_path / "m.pt2", more=more), tmp_path / "copy.pt2")
    with zipfile.ZipFile(tmp_path / "copy.pt2") as copy:
        assert copy.read("m/data/weights/weight_0") == bytes(range(99))
        assert set(copy.namelist()) == {
            "m/data/weights/model_weights_config.json", "m/data/weights/weight_0",
            "m/models/model.json", "m/archive_format", "m/.data/version",
        }  # fmt: skip
        assert all(info.compress_type == zipfile.ZIP_STORED for info in copy.infolist())


@pytest.mark.parametrize(
    "changes",
    [
        {"expr_str": f"Add(Mul(Integer(2), {SYMBOL}), Integer(-1))"},
        {"expr_str": "2*s0 + Mod(s1, 3) - FloorDiv(u0, 2.5)"},
        {"expr_str": "StrictLessThan(Integer(1), Max(s0, 4))"},
        {"guards_code": "Eq(Mod(L['x'].size()[0], 2), 0)"},
        {"target": "_operator.floordiv"},
        {"target": "torch.sym_max"},
        {"target": "torch.ops.aten.__and__.Tensor"},
        {"target": "torch.ops.aten._softmax.default"},
        {"target": "torch.ops.higher_order.wrap_with_set_grad_enabled"},
    ],
)
def test_arithmetic_of_sizes_and_operators_of_torch_pass(tmp_path, changes):
    checked_copy(archive(tmp_path / "m.pt2", program(**changes)), tmp_path / "copy.pt2")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("expr_str", "__import__('os').system('id')"),
        ("expr_str", "open"),
        ("expr_str", "s0.__class__"),
        ("expr_str", "s0 .func"),
        ("expr_str", "exec(input())"),
        ("expr_str", "s0 if s1 else [s2]"),
        ("expr_str", "Symbol('s0', integer=__import__)"),
        ("guards_code", "__import__('os').system('id')"),
        ("guards_code", "L['x'].__class__"),
        ("target", "torch.serialization.os.system"),
        ("target", "torch.hub.load"),
        ("target", "torch.ops.load_library"),
        ("target", "torch.ops.aten.from_file.default"),
        ("target", "torch.ops.aten.__class__.mro"),
        ("target", "torch.ops.higher_order.flat_apply"),
        ("target", "_operator.methodcaller"),
        ("target", "math.__loader__.load_module"),
        ("name", "x=print"),
        ("as_string", "'+print()+'"),
        ("in_spec", SPEC.replace("builtins.dict", "collections.defaultdict")),
        ("in_spec", SPEC.replace('[\\"mask\\"]', '{\\"__enum__\\": true}')),
        ("in_spec", SPEC.replace("mask", "a':print()")),
    ],
)
def test_text_that_torch_would_run_is_refused(tmp_path, key, text):
    assert program(**{key: text}) != program()
    message = refused(archive(tmp_path / "m.pt2", program(**{key: text})), tmp_path)
    assert f"has {key} " in message
    assert "which can run any code; export the network again" in message


def test_an_older_programs_text_is_checked_too(tmp_path):
    graph = json.dumps(program(expr_str="exit()"))
    more = [("serialized_exported_program.json", graph)]
    assert "has expr_str 'exit()'" in refused(archive(tmp_path / "m.pt2", more=more), tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"path_name": "weight_0", "use_pickle": True},
        {"path_name": "custom_obj_0", "use_pickle": False},
        {"path_name": "opaque_obj_0"},
        {},
    ],
)
@pytest.mark.parametrize("name", ["constants/model", "constants/b/c", "Weights/MODEL"])
def test_pickled_parts_are_refused_at_any_depth(tmp_path, entry, name):
    config = json.dumps({"config": {"conv.bias": entry}})
    path = archive(tmp_path / "m.pt2", more=[(f"m/data/{name}_constants_config.json", config)])
    assert "conv.bias is pickled, and reading it can run any code" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("m/data/aotinductor/model/a.so", "has the compiled library"),
        ("m/models/a/b.json", "has a second program"),
        ("m/models/other.json", "has a second program"),
        ("m/MODELS/x.json", "has a second program"),
        ("m/data/weights/WEIGHT_0", "has two members"),
    ],
)
def test_members_that_torch_would_load_besides_are_refused(tmp_path, name, cause):
    assert cause in refused(archive(tmp_path / "m.pt2", more=[(name, "{}")]), tmp_path)


def test_a_program_from_a_gpu_says_how_to_export_it(tmp_path):
    gpu = {**WEIGHT, "tensor_meta": {"device": {"type": "cuda", "index": 0}}}
    for path in (
        archive(tmp_path / "a.pt2", program(type="cuda")),
        archive(tmp_path / "b.pt2", weight=gpu),
    ):
        assert "was exported on a GPU (cuda); call model.cpu() before" in refused(path, tmp_path)


def test_a_damaged_program_is_an_error(tmp_path):
    path = archive(tmp_path / "m.pt2")
    content = path.read_bytes()
    path.write_bytes(content.replace(bytes(range(99)), bytes(99)))
    assert "is damaged: Bad CRC-32" in refused(path, tmp_path)
    path.write_bytes(content[:-30])
    assert "is damaged" in refused(path, tmp_path)
    deep = "[" * 100_000 + "]" * 100_000
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/models/model.json", deep)
    assert "is damaged" in refused(path, tmp_path)
