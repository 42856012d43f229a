"""Progress in notebooks."""

import sys
from types import ModuleType, SimpleNamespace

from edgesparse.graph import events
from edgesparse.graph.progress import LINES, NotebookProgress, RunProgress, default_listener


def notebook(monkeypatch, kernel):
    """IPython's functions that are used, and the outputs that a notebook would show."""
    outputs = []

    def display(shown, display_id):
        assert display_id is True
        outputs.append(shown)
        return SimpleNamespace(update=lambda other: outputs.__setitem__(-1, other))

    module, part = ModuleType("IPython"), ModuleType("IPython.display")
    module.get_ipython = lambda: SimpleNamespace(kernel=kernel)
    part.HTML, part.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", part)
    return outputs


def test_a_notebook_has_one_output_with_what_is_running(monkeypatch):
    outputs = notebook(monkeypatch, kernel=object())
    listener = default_listener()
    listener(events.StageDone("train", 1, 2, cached=True))
    listener(events.StageStarted("convert <b>", 2, 2))
    assert outputs == ["<pre>train: cached\n<b>convert &lt;b&gt;</b> </pre>"]
    listener(events.StageProgress("convert <b>", 0.5, "half"))
    listener(events.StageDone("convert <b>", 2, 2))
    listener(events.RoundMeasured("pi", "r", 1, "v", 1, 5, 1.0))
    assert outputs == ["<pre>train: cached\nconvert &lt;b&gt;: done</pre>"]


def test_elsewhere_nothing_is_shown(monkeypatch):
    assert default_listener() is events.null_listener
    notebook(monkeypatch, kernel=None)  # IPython in a terminal.
    assert not isinstance(default_listener(), NotebookProgress)


def test_the_last_lines_are_kept():
    progress = RunProgress()
    for number in range(LINES + 3):
        assert progress.take(events.Note(str(number)))
    assert list(progress.lines) == [str(number) for number in range(3, LINES + 3)]
    assert progress.take(events.StageFailed("verify", ("v",), "refused"))
    assert progress.lines[-1] == "FAILED verify: refused"
