"""Releases on this device: each whole or not there, one of them current.

    python releases.py install REQUEST.json    put files in place as ROOT/DIGEST
    python releases.py activate ROOT DIGEST KEEP
    python releases.py rollback ROOT DIGEST    make the last good one current, if DIGEST is
    python releases.py list ROOT

REQUEST has "root", "digest" and "files": {name: [path, sha256]}. ROOT/current is a symbolic link,
ROOT/history has a line for each release that was current, oldest first, with a "-" before those that
were rolled back from. A release is installed (only its folder exists), current, good (it was current
and was not rolled back from), bad, or removed. Only good ones count for KEEP, and a rollback goes to
good ones only. Every step writes a temporary name and renames it, so that a power cut leaves the old
or the new state. Prints one JSON object: {"current", "previous", "releases"} or {"error"}.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys

DIGEST = re.compile(r"[0-9a-f]{16}$")
MANAGED_PART = re.compile(r"([0-9a-f]{16}|current|history)\.part$")
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


def release_path(root, digest, *names):
    return os.path.join(root, digest, *names)


def current(root):
    try:
        name = os.path.basename(os.readlink(os.path.join(root, "current")))
    except OSError:
        return None
    return name if DIGEST.match(name) else None


def folders(root):
    """Return the digests of all releases, in any state."""
    return [
        name
        for name in sorted(os.listdir(root))
        if DIGEST.match(name) and os.path.isfile(release_path(root, name, "manifest.json"))
    ]


def history(root):
    """Read the lines of the history that are valid."""
    try:
        with open(os.path.join(root, "history"), "rb") as file:
            lines = [line.decode() for line in file.read().split() if LINE.match(line)]
    except OSError:
        lines = []
    if lines or current(root) is None:
        return lines
    # The history is lost: count all releases as good, by age, so that none is removed.
    return sorted(folders(root), key=lambda digest: os.stat(release_path(root, digest)).st_mtime)


def good(root):
    """Return the digests of good releases by activation, oldest first, the current one last."""
    lines, current_digest = history(root), current(root)
    activated = [digest for digest in lines if digest != current_digest]
    # A kill after the link was changed leaves a current release that is not in the history yet.
    if current_digest is not None and "-" + current_digest not in lines:
        activated.append(current_digest)
    here = set(folders(root))
    return [digest for digest in activated if digest in here]


def has_digest(path, sha256):
    return os.path.isfile(path) and not os.path.islink(path) and digest_of(path) == sha256


def is_intact(root, digest):
    """Return whether a release has the files of its manifest, whose digest is its name."""
    manifest = release_path(root, digest, "manifest.json")
    try:
        if not digest_of(manifest).startswith(digest):
            return False
        with open(manifest, "rb") as file:
            files = json.loads(file.read().decode())["files"]
        return all(
            has_digest(release_path(root, digest, name), sha256) for name, sha256 in files.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def install(request):
    root, digest, files = request["root"], request["digest"], request["files"]
    clean(root, good(root) + [digest])
    folder = release_path(root, digest)
    if os.path.islink(folder) or not os.path.isdir(folder):
        remove(folder)
    # The files of an existing folder can have been changed or damaged since.
    wrong = [
        name for name in sorted(files) if not has_digest(os.path.join(folder, name), files[name][1])
    ]
    if wrong:
        part = folder + ".part"
        os.mkdir(part)
        try:
            for name in wrong:
                source, sha256 = files[name]
                target = os.path.join(part, name)
                shutil.copyfile(source, target)
                if digest_of(target) != sha256:
                    raise OSError(5, "damaged while it was copied", target)
                fsync(target)
            fsync(part)
            if os.path.isdir(folder):
                # It can be the current one: replace file by file, so that it stays usable.
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
    if not os.path.isfile(release_path(root, digest, "manifest.json")):
        raise OSError(2, "release not found", release_path(root, digest))
    kept = ([other for other in good(root) if other != digest] + [digest])[-keep:]
    prepare(root, digest, kept)
    # In this order: a release that never became current must not be in the history.
    commit(root, "current", "history")
    clean(root, kept)
    return state(root)


def rollback(root, digest):
    current_digest = current(root)
    # A retry after a lost connection must not roll back twice.
    if current_digest != digest:
        return state(root)
    earlier = [other for other in good(root) if other != current_digest]
    damaged = None
    while earlier and not is_intact(root, earlier[-1]):
        damaged = earlier.pop()
    if not earlier:
        reason = "no earlier release" + (" except the damaged " + damaged if damaged else "")
        raise OSError(2, reason, release_path(root, current_digest))
    prepare(root, earlier[-1], earlier + ["-" + current_digest])
    # In this order: a release that was rolled back from must never count as good again.
    commit(root, "history", "current")
    return state(root)


def prepare(root, digest, lines):
    """Write the new link and history under temporary names: a full disk fails here."""
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
    """Remove leftovers of power cuts, and releases that are not spared, current or in a job."""
    for name in sorted(os.listdir(root), key=lambda name: not name.endswith(".part")):
        left = DIGEST.match(name) and name not in spared and name != current(root)
        if MANAGED_PART.match(name) or (left and not in_a_job(root, name)):
            try:
                remove(os.path.join(root, name))
            except OSError:
                pass  # It only takes up space.


def in_a_job(root, digest):
    """Return whether another host is installing a release, which its request then names."""
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
        # Renamed first: a partly removed release must not look like one.
        trash = path if path.endswith(".part") else path + ".part"
        if trash != path:
            shutil.rmtree(trash, ignore_errors=True)
            os.rename(path, trash)
        shutil.rmtree(trash, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def state(root):
    good_digests, current_digest = good(root), current(root)
    earlier = [digest for digest in good_digests if digest != current_digest]
    listed = earlier + [digest for digest in folders(root) if digest == current_digest]
    return {
        "current": current_digest,
        "previous": earlier[-1] if earlier else None,
        "releases": listed,
    }


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
            raise OSError(2, "no releases yet", root)
        with open(os.path.join(root, ".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(json.dumps(action()))
        return 0
    except OSError as error:
        print(json.dumps({"error": "%s: %s" % (error.filename or "release", error.strerror)}))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
