"""Releases on this device: each whole or not there, one of them current.

    python releases.py install REQUEST.json    put files in place as ROOT/DIGEST
    python releases.py activate ROOT DIGEST KEEP
    python releases.py rollback ROOT DIGEST    make the one before DIGEST current, if DIGEST is
    python releases.py list ROOT

REQUEST has "root", "digest" and "files": {name: [where it is, sha256]}. ROOT/current is a symbolic link,
ROOT/history has the digests in the order in which they became current. Every step writes beside and
renames, so that a power cut leaves the old state or the new one. Answers with one JSON object:
{"current", "previous", "releases"} or {"error"}.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys

OWN_PART = re.compile(r"([0-9a-f]{16}|current|history)\.part$")


def fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write(path, text):
    part = path + ".part"
    with open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    fsync(os.path.dirname(path))


def history(root):
    try:
        with open(os.path.join(root, "history")) as file:
            return file.read().split()
    except OSError:
        return []


def current(root):
    try:
        return os.path.basename(os.readlink(os.path.join(root, "current")))
    except OSError:
        return None


def releases(root):
    """Digests of whole releases, oldest activation first; one that never was current at the end."""
    found = {
        name
        for name in os.listdir(root)
        if not name.endswith(".part") and os.path.isfile(place(root, name, "manifest.json"))
    }
    known = [digest for digest in history(root) if digest in found]
    return known + sorted(found - set(known) - {"current"})


def place(root, digest, *names):
    return os.path.join(root, digest, *names)


def install(request):
    root, digest = request["root"], request["digest"]
    for name in os.listdir(root):  # What a power cut left.
        if OWN_PART.match(name):
            remove(os.path.join(root, name))
    if not os.path.isdir(place(root, digest)):
        part = place(root, digest + ".part")
        os.mkdir(part)
        try:
            for name, (source, sha256) in sorted(request["files"].items()):
                target = os.path.join(part, name)
                shutil.copyfile(source, target)
                if digest_of(target) != sha256:
                    raise OSError(5, "was damaged while it was copied", target)
                fsync(target)
            fsync(part)
        except BaseException:
            remove(part)
            raise
        os.rename(part, place(root, digest))
        fsync(root)
    return state(root)


def activate(root, digest, keep):
    if not os.path.isfile(place(root, digest, "manifest.json")):
        raise OSError(2, "there is no such release", place(root, digest))
    write(
        os.path.join(root, "history"), "\n".join(without(history(root), digest) + [digest]) + "\n"
    )
    point(root, digest)
    for old in releases(root)[:-keep]:
        if old != digest:
            remove(place(root, old))
    return state(root)


def rollback(root, digest):
    known = releases(root)
    now = current(root)
    # Asked a second time, after a connection broke, it must not go back once more.
    if now != digest:
        return state(root)
    earlier = known[: known.index(now)] if now in known else known
    if not earlier:
        raise OSError(2, "there is no release before this one", place(root, now))
    point(root, earlier[-1])
    return state(root)


def without(digests, digest):
    return [other for other in digests if other != digest]


def point(root, digest):
    part = os.path.join(root, "current.part")
    remove(part)
    os.symlink(digest, part)
    os.replace(part, os.path.join(root, "current"))
    fsync(root)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        # Renamed first: a release that is half removed must not look like one.
        trash = path if path.endswith(".part") else path + ".part"
        os.rename(path, trash)
        shutil.rmtree(trash, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def state(root):
    known, now = releases(root), current(root)
    earlier = known[: known.index(now)] if now in known else []
    return {"current": now, "previous": earlier[-1] if earlier else None, "releases": known}


def main(argv):
    os.umask(os.umask(0) | 0o022)
    try:
        if argv[:1] == ["install"] and len(argv) == 2:
            with open(argv[1]) as file:
                request = json.load(file)
            root, action = request["root"], lambda: install(request)
        elif argv[:1] == ["activate"] and len(argv) == 4:
            root, action = argv[1], lambda: activate(argv[1], argv[2], int(argv[3]))
        elif argv[:1] == ["rollback"] and len(argv) == 3:
            root, action = argv[1], lambda: rollback(argv[1], argv[2])
        elif argv[:1] == ["list"] and len(argv) == 2:
            root, action = argv[1], lambda: state(argv[1])
        else:
            sys.stderr.write(__doc__)
            return 2
        if argv[0] == "install":
            os.makedirs(root, exist_ok=True)
        elif not os.path.isdir(root):
            raise OSError(2, "nothing was released yet", root)
        with open(os.path.join(root, ".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(json.dumps(action()))
        return 0
    except OSError as error:
        print(json.dumps({"error": "%s: %s" % (error.filename or "release", error.strerror)}))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
