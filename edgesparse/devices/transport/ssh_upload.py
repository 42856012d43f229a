"""Copies files to a device through a command's stdin: without the sftp subsystem, resuming after a
lost connection, and safe for several senders of the same file. Models are compressed on the way and
verified by digest after unpacking.

Each sender has its own part file, which is renamed to the file. A part of another sender with the
same content is copied, never written to.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from edgesparse.devices.transport import processes, shell
from edgesparse.devices.transport.interface import (
    ROOM_LEFT_BYTES,
    ConnectionLost,
    DeviceError,
    NotWrittenError,
    Progress,
    Upload,
    disk_full,
    not_written,
)
from edgesparse.devices.transport.processes import Completed, last_line
from edgesparse.devices.transport.ssh_errors import UNREACHABLE
from edgesparse.spec.safe.compression import packed
from edgesparse.spec.safe.files import file_digest

UPLOAD_TRIES = 5

_COMMON = """
umask go-w
sum() {
  if command -v sha256sum >/dev/null; then sha256sum < "$1"
  else shasum -a 256 < "$1"; fi | cut -c1-64
}
have() { [ -f "$1" ] && [ ! -L "$1" ] && [ "$(sum "$1")" = "$2" ]; }
size() { bytes=$(wc -c < "$1") 2>/dev/null; bytes=${bytes:-0}; echo $((bytes)); }
"""
# $1 is the workdir, $2 the sender; then a target and a digest for each file.
_COMPARE = (
    _COMMON
    + """
echo "free $(df -Pk "$1" 2>/dev/null | awk 'END { print $(NF-2) }')"
sender=$2
shift 2
while [ $# -gt 0 ]; do
  own="$1.$2.$sender.part"
  if have "$1" "$2"; then touch "$1" 2>/dev/null; echo have
  else
    [ -L "$own" ] && rm -f "$own"
    if [ ! -f "$own" ]; then
      for other in "$1.$2".*part; do
        [ -f "$other" ] && [ ! -L "$other" ] && cp "$other" "$own" 2>/dev/null && break
      done
    fi
    size "$own"
  fi
  shift 2
done
"""
)
# $1 is the target, $2 its digest, $3 its size, $4 the sender, $5 where this part begins.
# A connection that breaks looks like the end of the file: what is too short stays, to be continued.
_RECEIVE = (
    _COMMON
    + """
target=$1 digest=$2 part="$1.$2.$4.part"
# Another sender may have been faster; then it took our part away.
fail() {
  [ $1 = 5 ] && ! have "$target" "$digest" && exit 5
  rm -f "$part"
  have "$target" "$digest" && exit 0
  exit $1
}
mkdir -p "$(dirname "$1")" || exit 4
if [ "$5" = 0 ] || [ -L "$part" ]; then rm -f "$part"; fi
cat >> "$part" || fail 4
[ "$(size "$part")" -ge "$3" ] || fail 5
[ "$(sum "$part")" = "$2" ] || fail 3
[ ! -d "$1" ] || { echo "it is a folder" >&2; fail 4; }
mv -f "$part" "$1" || fail 4
rm -f "$1.$2".*part
"""
)
# $1 is the sender; then a target, its digest and where it lies packed, for each file. Answers for
# each whether it is there now; a device that can unpack nothing gets it as it is.
_UNPACK = (
    _COMMON
    + """
unpack() {
  if command -v xz >/dev/null; then xz -dc < "$1"
  else python3 -I -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer)' < "$1"; fi
}
sender=$1
shift
while [ $# -gt 0 ]; do
  part="$1.$2.$sender.part"
  rm -f "$part"
  if unpack "$3" > "$part" 2>/dev/null && [ "$(sum "$part")" = "$2" ] && mv -f "$part" "$1"
  then echo ok; rm -f "$1.$2".*part
  else echo no; rm -f "$part"; fi
  rm -f "$3"
  shift 3
done
"""
)
_DAMAGED, _CANNOT_WRITE, _TOO_SHORT = 3, 4, 5


class Sender:
    """Copies files to a device. `run` runs a command on it, `argv` returns the ssh command for a
    shell line, `reconnect` restores the connection."""

    def __init__(
        self,
        name: str,
        workdir: str,
        run: Callable[[Sequence[str]], Completed],
        argv: Callable[[str], list[str]],
        reconnect: Callable[[], None],
    ) -> None:
        self.name = name
        self.workdir = workdir
        self.run = run
        self.argv = argv
        self.reconnect = reconnect
        self.id = uuid.uuid4().hex[:12]
        self._unpacks = True

    def put(
        self,
        files: Sequence[Upload],
        progress: Progress | None,
        refused: dict[str, str] | None,
    ) -> int:
        """Copy files; see Transport.put_files."""
        if not files:
            return 0
        # Entries can share a file.
        files = list({(file.target, file.sha256): file for file in files}.values())
        total = sum(file.source.stat().st_size for file in files)
        done = sent = 0
        # One round trip for all files: over a slow link each costs a second.
        free, states = self._compare(files)
        packs = self._packed([f for f, state in zip(files, states, strict=True) if state == 0])
        sent += self._send_packed(packs, free, progress, total)
        if packs:
            free, states = self._compare(files)
        for file, state in zip(files, states, strict=True):
            size = file.source.stat().st_size
            if state is not None:

                def tell(bytes_there: int, file: Upload = file, before: int = done) -> None:
                    if progress is not None and total:
                        progress((before + bytes_there) / total, f"sending {file.source.name}")

                try:
                    problem = (
                        None
                        if free is None
                        else disk_full(self.name, file, free + state, self.workdir)
                    )
                    if problem is not None:
                        raise problem
                    sent += self._send(file, state, tell)
                    free = None if free is None else free - size + state
                except NotWrittenError as error:
                    if refused is None:
                        raise
                    refused[file.target] = str(error)
            done += size
        return sent

    def _packed(self, files: Sequence[Upload]) -> dict[str, tuple[Upload, Upload]]:
        """Return the files that compress well with their compressed upload, by its target."""
        packs: dict[str, tuple[Upload, Upload]] = {}
        for file in files if self._unpacks else ():
            small = packed(file.source)
            if small is not None:
                digest = file_digest(small)
                target = f"{file.target.rpartition('/')[0]}/{digest}.xz"
                packs.setdefault(target, (file, Upload(small, target, digest)))
        return packs

    def _send_packed(
        self,
        packs: dict[str, tuple[Upload, Upload]],
        free: int | None,
        progress: Progress | None,
        total: int,
    ) -> int:
        """Copy compressed files and unpack them on the device; returns the bytes sent. Files that
        do not fit or cannot be unpacked are left to be sent uncompressed."""
        need = sum(s.source.stat().st_size + f.source.stat().st_size for f, s in packs.values())
        if not packs or (free is not None and free - need < ROOM_LEFT_BYTES):
            return 0
        sent = done = 0
        packed_files = [pack for _, pack in packs.values()]
        _, states = self._compare(packed_files)
        for (file, pack), state in zip(packs.values(), states, strict=True):
            size, share = file.source.stat().st_size, pack.source.stat().st_size

            def tell(
                sent_bytes: int,
                before: int = done,
                scale: float = size / share,
                file: Upload = file,
            ) -> None:
                if progress is not None and total:
                    progress((before + scale * sent_bytes) / total, f"sending {file.source.name}")

            if state is not None:
                sent += self._send(pack, state, tell)
            done += size
        arguments = []
        for file, pack in packs.values():
            arguments += [file.target, file.sha256, pack.target]
        answers = self.run(["/bin/sh", "-c", _UNPACK, "sh", self.id, *arguments]).stdout.split()
        self._unpacks = answers == ["ok"] * len(packs)
        return sent

    def _compare(self, files: Sequence[Upload]) -> tuple[int | None, list[int | None]]:
        """Return the free bytes of the disk, and for each file None where the device has it, else
        how many bytes of it were sent already."""
        arguments = [text for file in files for text in (file.target, file.sha256)]
        done = self.run(["/bin/sh", "-c", _COMPARE, "sh", self.workdir, self.id, *arguments])
        first, _, rest = done.stdout.partition("\n")
        answers = rest.split()
        if done.returncode or not first.startswith("free") or len(answers) != len(files):
            raise DeviceError(f"device {self.name}: cannot read its files: {done.last_line}")
        kilobytes = first.removeprefix("free").strip()
        free = int(kilobytes) * 1024 if _is_number(kilobytes) else None
        return free, [None if a == "have" else int(a) if _is_number(a) else 0 for a in answers]

    def _send(self, file: Upload, start: int, on_sent: processes.Tell) -> int:
        """Copy a file, resuming after a lost connection; returns the bytes sent."""
        sent, size = 0, file.source.stat().st_size
        position: int | None = start if start < size else 0
        damaged = False
        for _ in range(UPLOAD_TRIES):
            assert position is not None
            count, code, stderr = self._stream(file, position, size, on_sent)
            sent += count
            if code == 0:
                return sent
            if code == _CANNOT_WRITE:
                raise not_written(self.name, file, last_line(stderr))
            if code == _DAMAGED:
                if damaged:
                    break
                # The part that it resumed from was damaged: start again.
                damaged, position = True, 0
                continue
            if code not in (UNREACHABLE, _TOO_SHORT) and code >= 0:
                raise DeviceError(
                    f"device {self.name}: {file.source.name} was not copied: {last_line(stderr)}"
                )
            self.reconnect()
            position = self._compare([file])[1][0]
            if position is None:
                return sent
            position = position if position < size else 0
        if code == _DAMAGED:
            raise DeviceError(
                f"device {self.name}: {file.source.name} was damaged on its way, twice"
            )
        raise ConnectionLost(
            f"device {self.name}: connection lost {UPLOAD_TRIES} times while sending "
            f"{file.source.name}; run the same command again to resume",
            may_return=False,
        )

    def _stream(
        self, file: Upload, start: int, size: int, on_sent: processes.Tell
    ) -> tuple[int, int, str]:
        """Send a file's bytes from `start`; returns the bytes sent, the exit code and stderr."""
        numbers = [str(size), self.id, str(start)]
        argv = ["/bin/sh", "-c", _RECEIVE, "sh", file.target, file.sha256, *numbers]
        script, mark = shell.marked(shell.script_of(argv))
        with file.source.open("rb") as source:
            source.seek(start)
            sent, code, output = processes.feed(
                self.argv(shell.remote_command(script)), source, lambda n: on_sent(start + n)
            )
        stderr = output.decode(errors="replace")
        own_output = shell.output_after_mark(stderr, mark)
        return sent, code, stderr if own_output is None else own_output


def _is_number(text: str) -> bool:
    """Return whether a text from a device is a number of reasonable size."""
    return text.isascii() and text.isdecimal() and len(text) < 16
