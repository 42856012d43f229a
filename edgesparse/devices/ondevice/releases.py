"""Releases on this device: each whole or not there, one of them current.

    python releases.py install REQUEST.json    put files in place as ROOT/DIGEST
    python releases.py activate ROOT DIGEST KEEP
    python releases.py rollback ROOT DIGEST    make the last good one current, if DIGEST is
    python releases.py list ROOT

REQUEST has "root", "digest" and "files": {name: [where it is, sha256]}. ROOT/current is a symbolic link,
ROOT/history has a line for each release that was current, oldest first, with a "-" before those that
were rolled back from. A release is installed (its folder is there, no more), current, good (it was
current and nobody rolled back from it), bad, or removed. Only good ones count for KEEP, and only they
are gone back to. Every step writes beside and renames, so that a power cut leaves the old state or the
new one. Answers with one JSON object: {"current", "previous", "releases"} or {"error"}.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys

DIGEST = re.compile(r"[0-9a-f]{16}$")
OWN_PART = re.compile(r"([0-9a-f]{16}|current|history)\.part$")
LINE = re.compile(rb"-?[0-9a-f]{16}$")


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


def place(root, digest, *names):
    return os.path.join(root, digest, *names)


def current(root):
    try:
        name = os.path.basename(os.readlink(os.path.join(root, "current")))
    except OSError:
        return None
    return name if DIGEST.match(name) else None


def folders(root):
    """Digests of all releases here, in any state."""
    return [
        name
        for name in sorted(os.listdir(root))
        if DIGEST.match(name) and os.path.isfile(place(root, name, "manifest.json"))
    ]


def history(root):
    """Its lines; what of a damaged file can still be read."""
    try:
        with open(os.path.join(root, "history"), "rb") as file:
            lines = [line.decode() for line in file.read().split() if LINE.match(line)]
    except OSError:
        lines = []
    if lines or current(root) is None:
        return lines
    # Something was current once, but nobody knows any more what was good: by age, and nothing lost.
    return sorted(folders(root), key=lambda digest: os.stat(place(root, digest)).st_mtime)


def good(root):
    """Digests of good releases that are here, oldest activation first, the current one at the end."""
    lines, now = history(root), current(root)
    known = [digest for digest in lines if digest != now]
    # A kill after the link was changed leaves a current release that is not in the history yet.
    if now is not None and "-" + now not in lines:
        known.append(now)
    here = set(folders(root))
    return [digest for digest in known if digest in here]


def same(path, sha256):
    return os.path.isfile(path) and not os.path.islink(path) and digest_of(path) == sha256


def whole(root, digest):
    """Whether a release's files are those of its manifest, whose digest is its name."""
    manifest = place(root, digest, "manifest.json")
    try:
        if not digest_of(manifest).startswith(digest):
            return False
        with open(manifest, "rb") as file:
            files = json.loads(file.read().decode())["files"]
        return all(same(place(root, digest, name), sha256) for name, sha256 in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def install(request):
    root, digest, files = request["root"], request["digest"], request["files"]
    clean(root, good(root) + [digest])
    folder = place(root, digest)
    if os.path.islink(folder) or not os.path.isdir(folder):
        remove(folder)
    # A folder of that name may have been altered, or have rotted, since it was put there.
    wrong = [name for name in sorted(files) if not same(os.path.join(folder, name), files[name][1])]
    if wrong:
        part = folder + ".part"
        os.mkdir(part)
        try:
            for name in wrong:
                source, sha256 = files[name]
                target = os.path.join(part, name)
                shutil.copyfile(source, target)
                if digest_of(target) != sha256:
                    raise OSError(5, "was damaged while it was copied", target)
                fsync(target)
            fsync(part)
            if os.path.isdir(folder):
                # It may be the current one: file by file, so that it is there all the time.
                for name in wrong:
                    if os.path.isdir(os.path.join(folder, name)):
                        remove(os.path.join(folder, name))
                    os.replace(os.path.join(part, name), os.path.join(folder, name))
                fsync(folder)
        except BaseException:
            remove(part)
            raise
        if os.path.isdir(folder):
            remove(part)
        else:
            os.rename(part, folder)
        fsync(root)
    return state(root)


def activate(root, digest, keep):
    if not os.path.isfile(place(root, digest, "manifest.json")):
        raise OSError(2, "there is no such release", place(root, digest))
    kept = ([other for other in good(root) if other != digest] + [digest])[-keep:]
    prepare(root, digest, kept)
    # In this order: one that never became current must not be in the history.
    commit(root, "current", "history")
    clean(root, kept)
    return state(root)


def rollback(root, digest):
    now = current(root)
    # Asked a second time, after a connection broke, it must not go back once more.
    if now != digest:
        return state(root)
    earlier = [other for other in good(root) if other != now]
    damaged = None
    while earlier and not whole(root, earlier[-1]):
        damaged = earlier.pop()
    if not earlier:
        why = "there is no release before this one"
        raise OSError(2, why + (", but a damaged " + damaged if damaged else ""), place(root, now))
    prepare(root, earlier[-1], earlier + ["-" + now])
    # In this order: what was rolled back from must never again seem good.
    commit(root, "history", "current")
    return state(root)


def prepare(root, digest, lines):
    """Write the new link and history beside the old ones: a disk that is full is full now."""
    part = os.path.join(root, "history.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part = os.path.join(root, "current.part")
    remove(part)
    os.symlink(digest, part)


def commit(root, *names):
    for name in names:
        os.replace(os.path.join(root, name + ".part"), os.path.join(root, name))
        fsync(root)


def clean(root, spared):
    """Remove what a power cut left, and releases that are neither spared nor current nor in a job."""
    for name in sorted(os.listdir(root), key=lambda name: not name.endswith(".part")):
        left = DIGEST.match(name) and name not in spared and name != current(root)
        if OWN_PART.match(name) or (left and not in_a_job(root, name)):
            try:
                remove(os.path.join(root, name))
            except OSError:
                pass  # It takes up room, and no more.


def in_a_job(root, digest):
    """Whether another host is at work on a release: it is named in its request."""
    jobs = os.path.join(os.path.dirname(os.path.dirname(root)), "jobs")
    for name in os.listdir(jobs) if os.path.isdir(jobs) else ():
        path = os.path.join(jobs, name)
        try:
            with open(
                os.path.join(path, "job.json") if os.path.isdir(path) else path, "rb"
            ) as file:
                if digest.encode() in file.read():
                    return True
        except OSError:
            continue
    return False


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        # Renamed first: a release that is half removed must not look like one.
        trash = path if path.endswith(".part") else path + ".part"
        if trash != path:
            shutil.rmtree(trash, ignore_errors=True)
            os.rename(path, trash)
        shutil.rmtree(trash, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def state(root):
    known, now = good(root), current(root)
    earlier = [digest for digest in known if digest != now]
    listed = earlier + [digest for digest in folders(root) if digest == now]
    return {"current": now, "previous": earlier[-1] if earlier else None, "releases": listed}


def main(argv):
    os.umask(os.umask(0) | 0o022)
    try:
        if argv[:1] == ["install"] and len(argv) == 2:
            with open(argv[1], encoding="utf-8") as file:
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
