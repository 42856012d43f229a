"""Networks from the user's code; those that need PyTorch are in test_convert.py."""

import json
import subprocess
import sys

from tests.conftest import ROOT

READ = """
import sys
sys.path.append({root!r})
from edgesparse.tflite.exchange.converters import torch_network
ours, opened = (sys.prefix, sys.base_prefix, *sys.path), torch_network._opened()
sys.path.insert(0, "code")
import net, json
open("read.txt").close()
open("/proc/self/stat").close()
open(json.__file__).close()
open("gone", "w").close()
__import__("os").remove("gone")
print(json.dumps(torch_network._users(opened, ours)))
"""


def test_files_that_the_users_code_imports_and_opens_are_listed(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "net.py").write_text("import beside")
    (tmp_path / "code" / "beside.py").write_text("")
    (tmp_path / "read.txt").write_text("")
    words = [sys.executable, "-I", "-c", READ.format(root=str(ROOT))]
    for _ in range(2):  # The second time Python reads compiled files.
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        names = ("code/beside.py", "code/net.py", "read.txt")
        assert json.loads(done.stdout) == [str(tmp_path / name) for name in names]
