"""The folder on a device that is ours: marked when it is made, and refused when it is another's.

Whatever is removed on a device is removed below a marked folder and by names of our own form only;
a workdir such as `~` would otherwise put the user's files among ours.
"""

from __future__ import annotations

import uuid

from edgesparse.devices.transport.interface import DeviceError, Transport, WorkdirError
from edgesparse.spec.safe.text import clean

MARKER = ".edgesparse-workdir"

# $1 is the workdir, $2 the marker, $3 its id. Says one line: ours, foreign, owner, link or error.
# Folders that an earlier version made have no marker: they hold our names and a program of ours, or
# caches of ours, and nothing else: on this machine those may come before any workdir.
_CLAIM = r"""
umask go-w
cd / || exit 0
made=$(mkdir -p "$1" 2>&1) || { echo "error $made"; exit 0; }
[ -O "$1/." ] || { echo "owner $(ls -ld "$1/." | awk '{print $3}')"; exit 0; }
for name in files jobs programs venvs wheels releases lock "$2"; do
  [ -L "$1/$name" ] && { echo "link $name"; exit 0; }
done
hex='[0-9a-f][0-9a-f][0-9a-f][0-9a-f]'
adoptable() {
  set -f
  for name in $(ls -A "$1" | tr ' \t' '??'); do
    case "$name" in
      files|jobs|programs|venvs|venv|wheels|releases|lock|emulator|packed) ;;
      *) return 1;;
    esac
  done
  set +f
  for sign in "$1"/programs/*-$hex$hex$hex$hex.py "$1"/emulator/images \
      "$1"/wheels/$hex$hex$hex$hex "$1"/packed/$hex$hex$hex$hex*.xz
  do [ -e "$sign" ] && return 0; done
  return 1
}
if [ ! -f "$1/$2" ]; then
  if [ -n "$(ls -A "$1" | head -n 1)" ] && ! adoptable "$1"; then
    [ -f "$1/$2" ] || { echo "foreign $(ls -A "$1" | head -n 3 | tr '\n' ' ')"; exit 0; }
  fi
  # Of two at once one makes it; -C never writes over what is there.
  (set -C; echo "$3" > "$1/$2") 2>/dev/null || [ -f "$1/$2" ] || { echo "error"; exit 0; }
fi
cd "$1" || exit 0
chmod go-w . files jobs programs programs/* venvs releases 2>/dev/null
echo ours
"""


def claim(transport: Transport) -> None:
    """Make the device's workdir, and mark it as ours; nothing else is done there before.

    A folder that cannot be made or written is no matter of this: whoever looks at the device says
    so.

    Raises:
        WorkdirError: it has foreign files, another owner, or links in place of our folders.
        DeviceError: the device has no shell.
    """
    place = transport.workdir
    argv = ["/bin/sh", "-c", _CLAIM, "sh", place, MARKER, uuid.uuid4().hex]
    done = transport.run(argv)
    word, _, rest = done.stdout.strip().partition(" ")
    rest = clean(rest.strip(), 200)
    todo = "name another workdir in the device file, one that is empty or does not exist"
    start = f"device {transport.name}: workdir {place}"
    if word == "foreign":
        raise WorkdirError(f"{start} is not empty and not edgesparse's (it has: {rest}); {todo}")
    if word == "owner":
        raise WorkdirError(f"{start} belongs to {rest}; {todo}")
    if word == "link":
        raise WorkdirError(
            f"{start} has a link called {rest} where edgesparse's own would be; {todo}"
        )
    if word not in ("ours", "error"):
        raise DeviceError(f"{start} cannot be looked at: {done.last_line}")
