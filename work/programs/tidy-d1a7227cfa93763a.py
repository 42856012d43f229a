"""Removes leftovers of runs in this device's workdir, and nothing else.

    python tidy.py begin WORKDIR RUN...    stop and remove the jobs of these killed runs, and files
                                           that were not used for a day
    python tidy.py end WORKDIR FILE...     remove these files of workdir/files unless a job needs them

Only below a workdir with edgesparse's mark, only in edgesparse's folders, and only names that have its
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
    """Return whether the path is a folder, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def is_file(path):
    """Return whether the path is a file, not a link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def names(folder, form):
    """Return the names in a folder that have a form."""
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
    """Stop a job that still runs in a folder, since its host was killed."""
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
    # A clock that is set during a job makes its files look old: skip a device that runs a job.
    with open(os.path.join(workdir, "lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for folder, form in ((jobs, RUN), (os.path.join(workdir, "files"), FILE)):
            for name in names(folder, form):
                path = os.path.join(folder, name)
                if time.time() - last_changed(path) > OLD_SECONDS:
                    remove(path)


def last_changed(path):
    """Return the time of the last change of a file or in a folder; now, where it just went away."""
    try:
        times = [os.lstat(path).st_mtime]
        if is_folder(path):
            times += [os.lstat(os.path.join(path, name)).st_mtime for name in os.listdir(path)]
    except OSError:  # Another run of this device removed it in the meantime.
        return time.time()
    return max(times)


def job_requests(workdir):
    """Return the requests of all jobs as one text."""
    jobs, requests = os.path.join(workdir, "jobs"), []
    for name in names(jobs, RUN):
        path = os.path.join(jobs, name)
        path = os.path.join(path, "job.json") if is_folder(path) else path
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                requests.append(file.read())
        except OSError:
            continue
    return "".join(requests)


def end(workdir, files):
    folder = os.path.join(workdir, "files")
    if not is_folder(folder):
        return
    for name in files:
        path = os.path.join(folder, name)
        if not FILE.match(name) or not is_file(path) or name in job_requests(workdir):
            continue
        # Another host can start to use the file right now, after writing its request: rename it
        # first, then look at the requests once more.
        away = "%s.%s.%x.part" % (path, name[:64], os.getpid())
        try:
            os.rename(path, away)
            if name in job_requests(workdir):
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
        sys.stderr.write("%s has no %s\n" % (argv[1], MARKER))
        return 1
    {"begin": begin, "end": end}[argv[0]](argv[1], argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
