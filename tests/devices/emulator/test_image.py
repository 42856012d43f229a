"""Downloads of an image, without the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator.image import EmulatorError


def program(folder, monkeypatch, script):
    """A program in place of apt-get."""
    path = folder / "bin" / "apt-get"
    path.parent.mkdir()
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_downloads_report_their_share(tmp_path, monkeypatch):
    script = """
for word in "$@"; do case $word in APT::Status-Fd=*) fd=${word#*=};; esac; done
[ -n "$fd" ] || exit 0
touch "$(dirname "$APT_CONFIG")/cache/archives/dash_1_arm64.deb"
eval "echo dlstatus:1:50.0:Retrieving file 1 of 2 >&$fd"
eval "echo pmstatus:dash:99.0:Unpacking >&$fd"
eval "echo dlstatus:2:100.0:Retrieving file 2 of 2 >&$fd"
"""
    program(tmp_path, monkeypatch, script)
    shares = []
    archives = image._download(tmp_path / "apt", lambda share, text: shares.append(share))
    assert [path.name for path in archives] == ["dash_1_arm64.deb"]
    assert shares[-2:] == [pytest.approx(0.3), pytest.approx(0.5)]
    assert shares == sorted(shares)
    # The next build goes on in the same folder.
    assert image._download(tmp_path / "apt", lambda *_: None) == archives


def test_a_failed_download_names_its_cause_and_what_to_set(tmp_path, monkeypatch):
    program(
        tmp_path, monkeypatch, 'case "$*" in *install*) echo "E: no route" >&2; exit 100;; esac'
    )
    with pytest.raises(EmulatorError, match=r"no route; .*EDGESPARSE_APT_SOURCES"):
        image._download(tmp_path / "apt", lambda *_: None)


def test_programs_of_a_build_end_with_it(tmp_path, monkeypatch):
    """Otherwise apt-get keeps the lock that the next build needs."""
    program(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/pid; exec sleep 60")
    code = "from edgesparse.devices.emulator.image import _run; _run(['apt-get', 'update'])"
    with subprocess.Popen([sys.executable, "-c", code]) as build:
        while not (pid := (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""):
            assert build.poll() is None
        build.kill()
    while Path(f"/proc/{pid.strip()}/cmdline").exists():
        if not Path(f"/proc/{pid.strip()}/cmdline").read_bytes():
            break  # A zombie, until it is reaped.


def test_a_copy_has_no_blocks_for_what_is_empty(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    with (tmp_path / "from" / "disk.img").open("wb") as file:
        file.write(b"start")
        file.truncate(10 << 20)
    image.copy_sparse(tmp_path / "from", tmp_path / "to")
    copied = (tmp_path / "to" / "disk.img").stat()
    assert copied.st_size == 10 << 20
    assert copied.st_blocks * 512 < 1 << 20
