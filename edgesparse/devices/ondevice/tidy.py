"""Removes what runs left in this device's workdir, and nothing else.

    python tidy.py begin WORKDIR RUN...    end and remove jobs of these runs, whose host was killed,
                                           and what nobody has used for a day
    python tidy.py end WORKDIR FILE...     remove these files of workdir/files unless a job needs them

Only below a workdir that is marked as edgesparse's, only in its own folders, and only names of its own
form: a digest, a run's id. Links are neither followed nor removed.
"""

import fcntl
import os
import re
import shutil
import socket
import stat
import sys
import time

MARKER = ".edgesparse-workdir"
SOCKET = "socket"
OLD_SECONDS = 86400
STOP_SECONDS = 20.0
# The name of a run begins with when it began.
RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[A-Za-z0-9._@+-]+$")
FILE = re.compile(r"[0-9a-f]{64}(\.[A-Za-z0-9]{1,16})?(\.[0-9a-f]{64}(\.[0-9a-f]+)?\.part)?$")


def is_folder(path):
    """Whether it is a real folder, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def is_file(path):
    """Whether it is a real file, and no link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def names(folder, form):
    """What of our own form is in a folder."""
    return (
        [name for name in sorted(os.listdir(folder)) if form.match(name)]
        if is_folder(folder)
        else []
    )


def remove(path):
    try:
        if is_folder(path):
            shutil.rmtree(path, ignore_errors=True)
        elif is_file(path):
            os.remove(path)
    except OSError:
        pass


def stop_keeper(folder):
    """End the job that still runs there; a host that was killed cannot."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(STOP_SECONDS)
    here = os.getcwd()
    try:
        os.chdir(folder)  # A socket's path must be short.
        connection.connect(SOCKET)
        connection.sendall(b"stop")
        while connection.recv(65536):
            pass
    except OSError:
        pass
    finally:
        connection.close()
        os.chdir(here)


def begin(workdir, runs):
    jobs = os.path.join(workdir, "jobs")
    for name in names(jobs, RUN):
        if any(name.startswith(run + "-") for run in runs if RUN.match(run)):
            if is_folder(os.path.join(jobs, name)):
                stop_keeper(os.path.join(jobs, name))
            remove(os.path.join(jobs, name))
    # A clock that is set while a job runs makes all of it seem old: such a device is left alone.
    with open(os.path.join(workdir, "lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for folder, form in ((jobs, RUN), (os.path.join(workdir, "files"), FILE)):
            for name in names(folder, form):
                path = os.path.join(folder, name)
                if time.time() - newest(path) > OLD_SECONDS:
                    remove(path)


def newest(path):
    """When something was last changed there."""
    found = [os.lstat(path).st_mtime]
    if is_folder(path):
        found += [os.lstat(os.path.join(path, name)).st_mtime for name in os.listdir(path)]
    return max(found)


def needed(workdir):
    """The requests of all jobs that are there, as one text."""
    jobs, found = os.path.join(workdir, "jobs"), []
    for name in names(jobs, RUN):
        path = os.path.join(jobs, name)
        path = os.path.join(path, "job.json") if is_folder(path) else path
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found.append(file.read())
        except OSError:
            continue
    return "".join(found)


def end(workdir, files):
    folder = os.path.join(workdir, "files")
    if not is_folder(folder):
        return
    for name in files:
        path = os.path.join(folder, name)
        if not FILE.match(name) or not is_file(path) or name in needed(workdir):
            continue
        # Another host may just have found it there, after it put its job: away first, then looked
        # at once more.
        away = "%s.%s.%x.part" % (path, name[:64], os.getpid())
        try:
            os.rename(path, away)
            if name in needed(workdir):
                os.rename(away, path)
            else:
                os.remove(away)
        except OSError:
            continue


def main(argv):
    os.umask(os.umask(0) | 0o022)
    if len(argv) < 2 or argv[0] not in ("begin", "end"):
        sys.stderr.write(__doc__)
        return 2
    if not os.path.isfile(os.path.join(argv[1], MARKER)):
        sys.stderr.write("%s is not edgesparse's\n" % argv[1])
        return 1
    {"begin": begin, "end": end}[argv[0]](argv[1], argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
