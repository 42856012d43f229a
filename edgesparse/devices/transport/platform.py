"""Inspects a device with a shell script, which works also without Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgesparse.devices.transport.interface import DeviceError, Transport
from edgesparse.spec.safe.text import clean, outside_json

# Prints name=value lines. $1 is the workdir, $2 the Python, $3 the prefix of /sys and /dev.
# Without Python, `about` is the shell's error; with Python 2, which has no -I, its version. Modules
# in the current folder, which is the user's home, are not imported. An Edge TPU on USB has another
# id once its firmware is loaded.
_SCRIPT = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
say machine "$(uname -m)"
say kernel "$(uname -sr)"
say os "$( (. /etc/os-release && printf %s "$PRETTY_NAME") 2>/dev/null)"
say user "$(id -un 2>/dev/null || id -u)"
say groups "$(id -Gn 2>/dev/null)"
say shell "$SHELL"
say memory_kb "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo 2>/dev/null)"
say available_kb "$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo 2>/dev/null)"
say workdir_error "$(mkdir -p "$1" 2>&1 && touch "$1/.write-test" 2>&1 && rm -f "$1/.write-test")"
exec_test() {  # Where programs are not run, libraries are not loaded either.
  printf '#!/bin/sh\n' > "$1/.exec-test" && chmod 700 "$1/.exec-test" || return
  "$1/.exec-test" || say noexec yes
  rm -f "$1/.exec-test"
}
exec_test "$1" 2>/dev/null
say free_kb "$(df -Pk "$1" 2>/dev/null | sed -n '2s/.* \([0-9][0-9]*\)  *[0-9]*%.*/\1/p')"
may() { [ -w "$1" ] && echo yes || echo no; }
for place in "$3"/sys/bus/usb/devices/*; do
  [ -r "$place/idVendor" ] || continue
  case "$(cat "$place/idVendor"):$(cat "$place/idProduct")" in 1a6e:089a|18d1:9302)
    node=$(printf '%s/dev/bus/usb/%03d/%03d' "$3" "$(cat "$place/busnum")" "$(cat "$place/devnum")")
    say tpu "usb $(may "$node") $(cat "$place/speed")";;
  esac
done
for place in "$3"/dev/apex_*; do
  [ -e "$place" ] && say tpu "pcie $(may "$place") 0"
done
say about "$(
  "$2" -c '
import sys
sys.path[:] = [place for place in sys.path if place]
import json, platform, sys, sysconfig
try:
    import venv
except ImportError:
    venv = None
print(json.dumps({"version": platform.python_version(), "libc": platform.libc_ver()[1],
    "platform": sysconfig.get_platform(), "abi": getattr(sys, "abiflags", ""),
    "implementation": platform.python_implementation(), "venv": venv is not None}))
' 2>&1 | tail -n 1)"
"""


@dataclass(frozen=True)
class Platform:
    """System and hardware of a device. Its texts are shortened, and shown only, never run."""

    machine: str
    kernel: str
    os: str
    user: str
    groups: tuple[str, ...]
    python: str | None
    """Version of its Python; None without one."""
    python_problem: str
    abi: str
    implementation: str
    has_venv: bool
    glibc: str | None
    memory_bytes: int | None
    available_bytes: int | None
    free_bytes: int | None
    workdir_error: str
    noexec: bool
    """Whether workdir's file system refuses to run programs and to load libraries."""
    tpu_bus: str | None
    """"usb" or "pcie" where an Edge TPU is connected."""
    tpu_usable: bool
    """Whether the user has permission to open it."""
    tpu_mbit_per_second: int | None
    """Speed of the USB connection: 480 is USB 2, 5000 USB 3."""

    @property
    def minor(self) -> int:
        """11 of Python 3.11; 0 without Python 3."""
        parts = (self.python or "").split(".")
        matches = parts[0] == "3" and len(parts) > 1 and re.fullmatch("[0-9]{1,4}", parts[1])
        return int(parts[1]) if matches else 0


def probe(transport: Transport, root: str = "") -> Platform:
    """Inspect a device, whose /sys and /dev are below `root`.

    Raises:
        DeviceError: its shell does not work.
    """
    argv = ["/bin/sh", "-c", _SCRIPT, "sh", transport.workdir, transport.python, root]
    done = transport.run(argv)
    lines = [line[:2000] for line in done.stdout.split("\n")[:200] if "=" in line]
    fields = {name: clean(value) for name, _, value in (line.partition("=") for line in lines)}
    if not {"machine", "about"} <= fields.keys():
        raise DeviceError(f"device {transport.name}: cannot be inspected: {done.last_line}")
    python = _python(fields.get("about", ""))
    platform = str(python.get("platform", ""))
    machine = platform.rpartition("-")[2] if platform.startswith("linux-") else fields["machine"]
    return Platform(
        # Python's machine: a 32-bit system on a 64-bit kernel runs 32-bit programs.
        machine=machine[:40],
        kernel=fields.get("kernel", "")[:80],
        os=fields.get("os", "")[:80],
        user=fields.get("user", "")[:80],
        groups=tuple(fields.get("groups", "").split()[:100]),
        python=str(python["version"])[:40] if "version" in python else None,
        python_problem=fields.get("about", "")[:200],
        abi=str(python.get("abi", ""))[:10],
        implementation=str(python.get("implementation", ""))[:40],
        has_venv=bool(python.get("venv")),
        glibc=str(python["libc"])[:20] if python.get("libc") else None,
        memory_bytes=_bytes(fields.get("memory_kb")),
        available_bytes=_bytes(fields.get("available_kb")),
        free_bytes=_bytes(fields.get("free_kb")),
        workdir_error=fields.get("workdir_error", "")[:300],
        noexec=fields.get("noexec") == "yes",
        **_tpu(fields.get("tpu", "")),
    )


def _tpu(text: str) -> dict[str, Any]:
    bus, usable, speed = [*text.split(), "", "", ""][:3]
    return {
        "tpu_bus": bus if bus in ("usb", "pcie") else None,
        "tpu_usable": usable == "yes",
        "tpu_mbit_per_second": int(speed) if re.fullmatch("[1-9][0-9]{0,8}", speed) else None,
    }


def _python(text: str) -> dict[str, object]:
    data = outside_json(text)
    return data if isinstance(data, dict) else {}


def _bytes(kilobytes: str | None) -> int | None:
    text = kilobytes or ""
    return int(text) * 1024 if re.fullmatch("[0-9]{1,12}", text) else None
