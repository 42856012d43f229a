"""The workdir on a device: marked as edgesparse's when it is created, refused when it is not.

Files on a device are removed only below a marked folder and only by the names that edgesparse
gives; without the mark, a workdir such as `~` would put the user's files at risk.
"""

from __future__ import annotations

import uuid

from edgesparse.devices.transport.interface import DeviceError, Transport, WorkdirError
from edgesparse.spec.safe.text import clean

MARKER = ".edgesparse-workdir"

# $1 is the workdir, $2 the marker, $3 its id. Prints a line: ours, foreign, owner, link or error.
_CLAIM = r"""
umask go-w
cd / || exit 0
made=$(mkdir -p "$1" 2>&1) || { echo "error $made"; exit 0; }
[ -O "$1/." ] || { echo "owner $(ls -ld "$1/." | awk '{print $3}')"; exit 0; }
for name in files jobs programs venvs wheels releases lock "$2"; do
  [ -L "$1/$name" ] && { echo "link $name"; exit 0; }
done
if [ ! -f "$1/$2" ]; then
  # The caches of this machine may be there before a device uses it as workdir.
  content=$(ls -A "$1" | grep -vxE 'emulator|wheels|packed|delegate|zig' | head -n 3 | tr '\n' ' ')
  if [ -n "$content" ]; then
    [ -f "$1/$2" ] || { echo "foreign $content"; exit 0; }
  fi
  # Of two processes one creates it; -C never overwrites a file.
  (set -C; echo "$3" > "$1/$2") 2>/dev/null || [ -f "$1/$2" ] || { echo "error"; exit 0; }
fi
cd "$1" || exit 0
chmod go-w . files jobs programs programs/* venvs releases 2>/dev/null
echo ours
"""


def claim(transport: Transport) -> None:
    """Create the device's workdir and mark it, before anything else is done there.

    A folder that cannot be created or written is not an error here: the set-up reports it.

    Raises:
        WorkdirError: it has foreign files, another owner, or links in place of our folders.
        DeviceError: the device has no shell.
    """
    workdir = transport.workdir
    argv = ["/bin/sh", "-c", _CLAIM, "sh", workdir, MARKER, uuid.uuid4().hex]
    done = transport.run(argv)
    word, _, rest = done.stdout.strip().partition(" ")
    rest = clean(rest.strip(), 200)
    todo = "choose another workdir in the device file that is empty or does not exist"
    start = f"device {transport.name}: workdir {workdir}"
    if word == "foreign":
        raise WorkdirError(f"{start} has files of others ({rest}); {todo}")
    if word == "owner":
        raise WorkdirError(f"{start} belongs to {rest}; {todo}")
    if word == "link":
        raise WorkdirError(f"{start} has a link {rest} in place of edgesparse's folder; {todo}")
    if word not in ("ours", "error"):
        raise DeviceError(f"{start}: cannot be read: {done.last_line}")
