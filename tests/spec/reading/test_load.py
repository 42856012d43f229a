import re

import pytest

from edgesparse.spec.device import Group
from edgesparse.spec.errors import SpecError
from edgesparse.spec.reading.load import (
    RENAMED,
    files_of_devices,
    load_any,
    load_device_or_group,
    load_pipeline,
    parse_device,
    parse_pipeline,
)
from edgesparse.spec.reading.schema import schema_text
from tests.conftest import ROOT

BASE = """
name: p
data: {name: digits}
model: {name: mlp, args: {input_shape: [8, 8, 1], classes: 10}}
variants:
  a: {}
"""
SHIPPED = sorted((ROOT / "pipelines").glob("*.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, "p.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_pipelines_are_valid(path):
    assert load_pipeline(path).spec.name == path.stem
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json")


def test_shipped_devices_are_valid():
    for path in files_of_devices(ROOT / "devices"):
        spec = load_device_or_group(path).spec
        assert spec.name == path.stem
        if isinstance(spec, Group):
            assert all(path.with_name(f"{name}.yaml").exists() for name in spec.devices)


@pytest.mark.parametrize("kind", ["pipeline", "device"])
def test_shipped_schema_is_what_the_program_prints(kind):
    shipped = ROOT / f"{kind}s" / "schema.json"
    assert shipped.read_text() == schema_text(kind) + "\n", "run 'make schemas'"


def test_all_mistakes_at_once_with_suggestions():
    found = problems(
        """
name: Digits
data: {nme: digits}
model: {name: mlp}
train: {epocs: 3, batch_size: x}
variants:
  a: {sparsify: {method: magnitud}}
  b: {sparsify: {method: magnitude, sparsity: 2, patern: x, schedule: {begin: .5, end: .1}}}
  c: {quantize: int9}
  d: {quantize: {scheme: f16, qat: true}}
  E: {}
gates: [{variant: a, metric: acuracy, max: 1}, {variant: a, metric: accuracy}]
"""
    )
    expected = [
        "p.yaml:2:7: invalid name 'Digits'",
        "p.yaml:3:8: unknown key 'nme'; did you mean 'name'?",
        "p.yaml:5:9: unknown key 'epocs'; did you mean 'epochs'?",
        "p.yaml:5:31: input should be a valid integer",
        "p.yaml:7:26: unknown method 'magnitud'; did you mean 'magnitude'?",
        "p.yaml:8:47: input should be less than 1",
        "p.yaml:8:50: unknown key 'patern'; did you mean 'pattern'?",
        "p.yaml:8:71: 'end' must be greater than 'begin'",
        "p.yaml:9:17: invalid value 'int9'; did you mean 'int8' or 'uint8'?",
        "p.yaml:10:17: 'qat: true' requires 'scheme: int8'",
        "p.yaml:11:3: invalid name 'E'",
        "p.yaml:12:48: set 'min' or 'max' or both",
    ]
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_earlier_keys_are_errors_that_name_the_new_one():
    text = (
        BASE
        + """
  b: {sparsify: {method: cluster}, quantize: {scheme: int8, aware: true}}
  c: {sparsify: {method: channels, macs: .5, multiple: 4, max_ratio: .5}}
  d: {sparsify: {method: rigl, sparsity: .5, densities: erk}}
  e: {sparsify: {method: weight_sharing}}
  f: {sparsify: {method: magnitude, sparsity: .5, scope: global}}
search: {variant: {}, objectives: [bytes], limits: [], at_once: 2}
verify: {samples: 3}
"""
    )
    assert [line.partition(": ")[2] for line in problems(text)] == [
        "unknown method 'cluster'; it is now called 'weight-sharing'",
        "unknown key 'aware'; it is now called 'qat'",
        "unknown key 'multiple'; it is now called 'round_to'",
        "unknown key 'max_ratio'; it is now called 'max_pruning_ratio'",
        "unknown key 'densities'; it is now called 'distribution'",
        "unknown method 'weight_sharing'; it is now called 'weight-sharing'",
        "unknown key 'scope'; it is now called 'distribution'",
        "unknown key 'limits'; it is now called 'constraints'",
        "unknown key 'at_once'; it is now called 'parallel_trials'",
        "unknown key 'samples'; it is now called 'golden_samples'",
    ]
    with pytest.raises(SpecError, match="'runtime'; it is now called 'install'"):
        parse_device("name: d\nconnect: {local: {}}\nruntimes: [x]\nruntime: venv\n")


def test_renamed_keys_exist():
    schema = schema_text("pipeline") + schema_text("device")
    assert all(f'"{name}"' in schema for names in RENAMED.values() for name in names)


def test_names_that_refer_to_variants():
    found = problems(BASE + "  b: {}\nbaseline: aa\ngates: [{variant: bb, metric: bytes, max: 1}]")
    assert found == [
        "p.yaml:8:11: baseline: unknown variant 'aa'; did you mean 'a'?",
        "p.yaml:9:19: unknown variant 'bb'; did you mean 'b'?",
    ]


def test_arguments_of_a_builtin_are_checked():
    found = problems(BASE.replace("classes: 10", "clases: 10"))
    assert "p.yaml:4:51: mlp has no argument 'clases'; did you mean 'classes'?" in found
    assert any("requires the argument 'classes'" in line for line in found)


@pytest.mark.parametrize("name", ["../x", "a/b", "-rf", "A", "a b", "a\\nb", "", "x" * 65])
def test_names_are_limited(name):
    assert problems(BASE.replace("name: p", f'name: "{name}"'))


def test_half_precision_is_of_floats_that_are_stored_densely():
    spec = parse_pipeline(BASE + "  b: {quantize: {scheme: f16, compute: f16}}\n").spec
    assert spec.variants["b"].quantize.compute == "f16"
    (wrong,) = problems(BASE + "  b: {quantize: {scheme: int8, compute: f16}}\n")
    assert "'compute: f16' requires 'scheme: f16' or f32" in wrong
    (wrong,) = problems(BASE + "  b: {quantize: {compute: f16}, storage: sparse}\n")
    assert "'compute: f16' and 'storage: sparse' exclude each other" in wrong


@pytest.mark.parametrize(
    ("variant", "corrects"),
    [
        ("quantize: int8", False),
        ("quantize: {scheme: uint8, bias_correction: true}", True),
        ("sparsify: {method: one-shot, sparsity: 0.5}, quantize: int8", True),
        ("sparsify: {method: one-shot, sparsity: 0.5}", False),
        ("sparsify: {method: one-shot, sparsity: 0.5, epochs: 2}, quantize: int8", False),
        (
            "sparsify: {method: one-shot, sparsity: 0.5}, "
            "quantize: {scheme: int8, bias_correction: false}",
            False,
        ),
    ],
)
def test_biases_are_corrected_where_nothing_was_trained(variant, corrects):
    spec = parse_pipeline(BASE + f"  b: {{{variant}}}\n").spec
    assert spec.variants["b"].corrects_biases is corrects


def test_biases_of_floats_need_no_correction():
    (wrong,) = problems(BASE + "  b: {quantize: {scheme: f16, bias_correction: true}}\n")
    assert "'bias_correction' requires 'scheme: int8'" in wrong


def test_defaults_and_shorthands():
    spec = parse_pipeline(BASE + "  b: {quantize: int8}\n  c:\n").spec
    assert spec.baseline_variant == "a"
    assert spec.variants["b"].quantize.scheme == "int8"
    assert spec.variants["c"].storage == "auto"
    assert spec.benchmark.rounds >= 5
    assert spec.benchmark.min_seconds >= 10


def test_reference_errors_have_their_place(tmp_path):
    (tmp_path / "mine.py").write_text("def build(width):\n    pass\n")
    path = tmp_path / "p.yaml"
    path.write_text(BASE.replace("{name: mlp, args: {input_shape: [8, 8, 1], classes: 10}}",
                                 "{ref: 'mine.py:biuld'}"))  # fmt: skip
    with pytest.raises(SpecError, match=r"p.yaml:4:14: mine.py has no function 'biuld'; did you"):
        load_pipeline(path)
    path.write_text(path.read_text().replace("mine.py:biuld", "other.py:build"))
    with pytest.raises(SpecError, match=r"p.yaml:4:14: no file 'other.py'"):
        load_pipeline(path)
    path.write_text(path.read_text().replace("other.py", "no_such_module_here"))
    with pytest.raises(SpecError, match=r"no Python module 'no_such_module_here'"):
        load_pipeline(path)


def test_data_files_must_exist(tmp_path):
    """Loaders of the user's own get their arguments as they are."""
    (tmp_path / "train-1.rec").touch()
    patterns = "{train: 'train-*.rec', validation: 'val-*.rec', test: 'test-*.rec'}"
    for data, missing in [
        ("{name: csv, args: {path: no.csv, target: y}}", ["no.csv"]),
        ("{name: image-folder, args: {path: images, splits: s.csv}}", ["images", "s.csv"]),
        (f"{{name: tfrecord, args: {patterns[:-1]}, features: {{}}, target: y}}}}",
         ["val-*.rec", "test-*.rec"]),
        ("{name: csv, args: {path: /no/where.csv, target: y}}", ["/no/where.csv"]),
    ]:  # fmt: skip
        text = BASE.replace("{name: digits}", data)
        with pytest.raises(SpecError) as caught:
            parse_pipeline(text, str(tmp_path / "p.yaml"))
        assert [p.message for p in caught.value.problems] == [
            f"no {name!r} beside the YAML file" for name in missing
        ]
    (tmp_path / "own.py").write_text("def load(path): ...")
    own = BASE.replace("{name: digits}", "{ref: 'own.py:load', args: {path: s3-bucket}}")
    assert parse_pipeline(own, str(tmp_path / "p.yaml")).spec.data.args["path"] == "s3-bucket"


def test_modules_that_a_file_imports_must_be_installed(tmp_path):
    (tmp_path / "beside.py").touch()
    code = (
        "import os, numpy.linalg\nimport beside\ntry:\n    import no_a\nexcept ImportError: ...\n"
    )
    path, text = tmp_path / "own.py", BASE.replace("{name: digits}", "{ref: 'own.py:load'}")
    path.write_text(f"{code}def load(): import no_b")
    parse_pipeline(text, str(tmp_path / "p.yaml"))
    path.write_text(f"{code}from no_c.d import e\ndef load(): ...")
    with pytest.raises(SpecError, match=r"own.py:6 imports no_c, which is not installed"):
        parse_pipeline(text, str(tmp_path / "p.yaml"))
    path.write_text(f"import sys\nsys.path.append('lib')\n{path.read_text()}")
    parse_pipeline(text, str(tmp_path / "p.yaml"))


def test_a_linked_folder_has_the_references_of_the_folder_itself(tmp_path):
    (tmp_path / "deep" / "pipelines").mkdir(parents=True)
    (tmp_path / "deep" / "parts.py").write_text(
        "def build():\n    pass\ndef load():\n    pass\nclass Stop:\n    pass\n"
    )
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "pipelines")
    text = BASE.replace("{name: digits}", "{ref: '../parts.py:load'}")
    text = re.sub("model: .*", "model: {ref: '../parts.py:build'}", text)
    text += "train: {callbacks: ['../parts.py:Stop']}\n"
    (tmp_path / "link" / "p.yaml").write_text(text)
    loaded = load_pipeline(tmp_path / "link" / "p.yaml")
    assert loaded.folder == tmp_path.resolve() / "deep" / "pipelines"


def test_device_file():
    spec = parse_device("name: d\nconnect: {local: {}}\nruntimes: [ai-edge-litert]\n").spec
    assert spec.runtimes[0].name == "ai-edge-litert"
    with pytest.raises(SpecError) as caught:
        parse_device("name: d\nconnect: {lokal: {}}\nruntimes: [litert]\ndelegate: gpu\n", "d.yaml")
    lines = [str(p) for p in caught.value.problems]
    assert any("unknown key 'lokal'; did you mean 'local'?" in line for line in lines)
    assert any(line.startswith("d.yaml:3:12: invalid value 'litert'") for line in lines)
    assert any(line.startswith("d.yaml:4:11: invalid value 'gpu'") for line in lines)


def test_a_device_file_is_known_by_its_keys(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("name: d\nconnect: {local: {}}\nruntimes: [ai-edge-litert]\n")
    assert load_any(path).spec.name == "d"


def test_a_gate_is_about_a_metric_that_some_task_has():
    given = BASE + "gates: [{variant: a, metric: acuracy_drop, max: 1}]"
    assert problems(given) == [
        "p.yaml:7:30: unknown metric 'acuracy_drop'; did you mean 'accuracy_drop' or 'auc_drop'?"
    ]
    for metric in ("mae_drop", "top-3", "mean-iou", "head mae", "p50_ms"):
        parse_pipeline(given.replace("acuracy_drop", metric))
    own = given + '\ntask: {ref: "mine.py:task"}'
    assert [p for p in problems(own) if "metric" in p] == []
