import numpy as np
import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.half_precision import allow_half_precision, computes_half
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.explain import explain
from edgesparse.tflite.runtimes.storage import HALF_IS_DENSE, store

PI5 = Profile(
    Machine("ai-edge-litert", "2.1.6", "aarch64", frozenset({"asimdhp", "asimddp", "asimd"}))
)
X86 = Profile(Machine("ai-edge-litert", "2.1.6", "x86_64", frozenset({"avx2"})))


@pytest.fixture
def half(tflite_files):
    return allow_half_precision(tflite_files["dense"].read_bytes())


def test_a_file_says_it_once_and_answers_as_before(tflite_files, half):
    dense = tflite_files["dense"].read_bytes()
    assert not computes_half(dense)
    assert computes_half(half)
    assert allow_half_precision(half) == half
    assert inspect(half).half_precision
    assert not inspect(dense).half_precision
    assert len(half) - len(dense) < 1000
    item, other = (inspect(content).weights for content in (dense, half))
    assert item == other
    assert _answer(half) == pytest.approx(_answer(dense), abs=1e-2)


def _answer(content):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    values = np.random.default_rng(0).normal(size=source["shape"]).astype(np.float32)
    interpreter.set_tensor(source["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_damaged_file_says_so():
    with pytest.raises(UsageError, match=r"damaged|is not"):
        computes_half(b"\0\0\0\0TFL3")


def test_nothing_in_it_is_stored_sparse(tflite_files, half):
    before = store(tflite_files["dense"].read_bytes(), PI5, "auto")[1]
    assert any(item.form != "dense" for item in before)
    content, decided = store(half, PI5, "sparse")
    assert {item.form for item in decided} == {"dense"}
    assert {item.reason for item in decided} == {HALF_IS_DENSE}
    assert inspect(content).storage == "dense"
    assert computes_half(content)


def test_sparse_storage_in_it_is_refused_where_the_cpu_would_compute_so(tflite_files):
    both = allow_half_precision(tflite_files["sparse"].read_bytes())
    wide = {item.name: item for item in explain(both, PI5)}["wide"]
    assert not wide.accepted
    assert wide.reason == HALF_IS_DENSE
    assert {item.name: item for item in explain(both, X86)}["wide"].accepted
