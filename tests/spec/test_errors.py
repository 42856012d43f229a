"""An error's cause, of all that stands around it."""

import importlib.util

import pytest

from edgesparse.spec.errors import cause_of, summary_of

LAYER = """Exception encountered when calling layer "quantize_layer" (type QuantizeLayer).

Value passed to parameter 'input' has DataType int32 not in list of allowed values: float32

Call arguments received by layer "quantize_layer" (type QuantizeLayer):
  • inputs=tf.Tensor(shape=(None, 16), dtype=int32)"""
GRAPH = """Graph execution error:

Detected at node gradient_tape/model/dense/MatMul defined at (most recent call last):
  File "train.py", line 3, in <module>

Matrix size-incompatible: In[0]: [32,10], In[1]: [12,3]
\t [[{{node gradient_tape/model/dense/MatMul}}]] [Op:__inference_train_function_1234]"""
USER = """in user code:

    File "/home/me/layer.py", line 12, in call  *
        return x @ self.w

    ValueError: Dimensions must be equal, but are 8 and 16
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("plain", "plain"),
        ("", "ValueError"),
        ("first\nsecond", "first"),
        (
            LAYER,
            "Value passed to parameter 'input' has DataType int32 not in list of allowed values: "
            "float32",
        ),
        (GRAPH, "Matrix size-incompatible: In[0]: [32,10], In[1]: [12,3]"),
        (USER, "ValueError: Dimensions must be equal, but are 8 and 16"),
        ("Graph execution error:", "Graph execution error:"),
    ],
)  # fmt: skip
def test_the_line_that_says_what_went_wrong(text, cause):
    assert cause_of(ValueError(text)) == cause


def test_nothing_is_cut_within_a_word():
    text = cause_of(ValueError("word " * 100), limit=48)
    assert text == "word " * 8 + "word ..."


def test_the_users_line_is_named(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("def build():\n    import json\n    json.loads('{')\n")
    space = {}
    exec(compile(own.read_text(), str(own), "exec"), space)
    with pytest.raises(ValueError, match="Expecting") as error:
        space["build"]()
    assert summary_of(error.value).startswith("mine.py:3: JSONDecodeError: Expecting property")
    assert summary_of(ValueError("never raised")) == "ValueError: never raised"


def test_a_line_that_tensorflow_rewrites_is_named(tmp_path):
    import tensorflow as tf

    (tmp_path / "mine.py").write_text("def call(x):\n    return {}[int(x.shape[0])]\n")
    found = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    with pytest.raises(KeyError) as error:
        tf.function(module.call)(tf.zeros((7,)))
    assert summary_of(error.value) == "mine.py:2: KeyError: 7"
