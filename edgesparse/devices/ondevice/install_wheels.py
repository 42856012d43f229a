"""Creates a virtual environment from wheels that were copied to this device.

    python install_wheels.py REQUEST.json

REQUEST has "venv" (the folder to create), "link" (a link to it), "wheels" (files, each with its
sha256), "modules" (imported as a test) and "lock" (held while a job measures). The environment
appears complete or not at all. Prints its progress and result as one JSON object a line: {"share",
"text"}, {"done"} or {"error"}.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile

TRIAL_SECONDS = 600
MANAGED_NAME = re.compile(r"[0-9a-f]{16}(\.part)?$")


def emit(**about):
    print(json.dumps(about), flush=True)


def install(request):
    path, link = request["venv"], request["link"]
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    with open(os.path.join(parent, "lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(path):
            try:
                build(request, path + ".part")
                os.sync()
                os.rename(path + ".part", path)
            finally:
                # Under the lock: it is not that of another set-up.
                shutil.rmtree(path + ".part", ignore_errors=True)
        os.utime(path)
        point(link, path)
        remove_others(parent, os.path.basename(path), request["lock"])


def build(request, part):
    shutil.rmtree(part, ignore_errors=True)
    # Without pip: Debian splits what pip needs into a package that is often not installed.
    venv.EnvBuilder(symlinks=True, with_pip=False).create(part)
    site = os.path.join(part, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    sizes = [os.path.getsize(path) for path, _ in request["wheels"]]
    done = 0
    for (path, digest), size in zip(request["wheels"], sizes):
        emit(
            share=0.9 * done / sum(sizes), text="unpacking " + os.path.basename(path).split("-")[0]
        )
        verify(path, digest)
        unpack(path, site)
        done += size
    for module in request["modules"]:
        emit(share=0.9, text="trying " + module)
        try_import(os.path.join(part, "bin", "python"), module)


def verify(path, expected):
    digest = hashlib.sha256()
    with open(path, "rb") as wheel:
        for block in iter(lambda: wheel.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise RuntimeError("%s is damaged: its sha256 is not %s" % (path, expected))


def unpack(path, site):
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            parts = name.split("/")
            if name.startswith("/") or ".." in parts:
                raise RuntimeError("%s contains a path outside of it: %s" % (path, name))
            if parts[0].endswith(".data"):
                # NAME.data/{purelib,platlib}/ go to site-packages; scripts are not needed.
                if len(parts) < 3 or parts[1] not in ("purelib", "platlib") or not parts[-1]:
                    continue
                target = os.path.join(site, *parts[2:])
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with wheel.open(name) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink)
            else:
                wheel.extract(name, site)


def try_import(python, module):
    """Import a module in a child process, since a wheel for another processor crashes it."""
    done = subprocess.run(
        [python, "-I", "-c", "import numpy, " + module],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TRIAL_SECONDS,
    )
    if done.returncode < 0:
        raise RuntimeError(
            "%s crashes with signal %d on this device; its wheel is for another processor or system"
            % (module, -done.returncode)
        )
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no output"]
        raise RuntimeError("cannot import %s: %s" % (module, lines[-1][:300]))


def point(link, target):
    """Make `link` a symbolic link to `place`, in one step."""
    part = "%s.%d" % (link, os.getpid())
    os.symlink(os.path.relpath(target, os.path.dirname(link)), part)
    os.replace(part, link)


def remove_others(parent, kept, device_lock):
    """Remove other environments, unless a job is measuring, which can run in one of them."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(device_lock, flags, 0o644), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            if name != kept and MANAGED_NAME.match(name) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)


def main(argv):
    if len(argv) != 1:
        sys.stderr.write(__doc__)
        return 2
    os.umask(os.umask(0) | 0o022)
    with open(argv[0], encoding="utf-8") as file:
        request = json.load(file)
    try:
        install(request)
    except OSError as error:
        hint = "; free space" if error.errno == errno.ENOSPC else ""
        emit(error="%s: %s%s" % (error.filename or request["venv"], error.strerror or error, hint))
        return 1
    except (RuntimeError, zipfile.BadZipFile, subprocess.TimeoutExpired) as error:
        emit(error=str(error))
        return 1
    emit(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
