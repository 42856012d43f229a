"""Builds the disk of an emulated Raspberry Pi: a small Debian for aarch64, built without root.

The packages come from this machine's apt sources, through a separate apt configuration; nothing is
mounted and no package script is run. Downloads of an interrupted build are kept for the next one.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgesparse.devices.transport.processes import last_line
from edgesparse.spec.errors import EdgesparseError

Progress = Callable[[float, str], None]

PACKAGES = (
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "kmod",
    "libatomic1",
    "libstdc++6",
    "linux-image-arm64",
    "login",
    "mount",
    "netbase",
    "openssh-server",
    "openssh-sftp-server",
    "passwd",
    "procps",
    "python3",
    "sed",
    "tar",
    "util-linux",
)
MODULES = (
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "crc16",
    "crc32c_generic",
    "libcrc32c",
    "mbcache",
    "jbd2",
    "ext4",
)
"""Kernel modules for disk and network, dependencies first."""
TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "tar": "tar",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Programs on this machine, and the Debian packages that have them."""
COMPILED = ("collections", "ctypes", "encodings", "importlib", "json", "re", "urllib")
"""Folders of Python's library that the agent and the runtimes import, besides its top level."""
BOUND = ("setpriv", "--pdeathsig", "KILL")
"""Begins commands that end with this process: the next build needs their locks and files."""
SOURCES_VARIABLE = "EDGESPARSE_APT_SOURCES"
DISK_MB = 1200
USER = "pi"
UID = 1000

_APT = """
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architecture "arm64";
APT::Architectures {{"arm64";}};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""
# Without /root it ends, and QEMU with it.
_INITRD = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module.ko 2>/dev/null; done
/bin/busybox mount -t ext4 /dev/vda /root || exit 1
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""
# The first boot gives every file to root, which an unprivileged build cannot. It also compiles
# Python's library, as the package script would: otherwise each process that imports a runtime
# compiles it again, which doubles its start-up time.
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -o remount,rw,noatime /dev/vda /
hostname {name}
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
if [ "$(stat -c %u /usr)" != 0 ] || [ "$(stat -c %u /home/{user})" != {uid} ]; then
  echo "{step} giving files their owners"
  chown -h -R 0:0 /usr /etc /bin /sbin /lib /var /home
  chown -R {uid}:{uid} /home/{user}
fi
for folder in {modules}; do
  [ -d $folder/__pycache__ ] && continue
  echo "{step} compiling $folder"
  python3 -m compileall -q -l $folder
done
echo "{step} starting the SSH server"
mkdir -p /run/sshd
/usr/sbin/sshd -D -e &
while :; do wait; done
"""
_SSHD = """
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UseDNS no
PrintMotd no
LoginGraceTime 0
Subsystem sftp /usr/lib/openssh/sftp-server
"""


STEP = "edgesparse:"
"""Begins the lines of /sbin/init on the console; a boot is alive while lines come."""


class EmulatorError(EdgesparseError):
    """The emulated device cannot be built or started."""


def check_tools(tools: Mapping[str, str] = TOOLS) -> None:
    """Raise EmulatorError naming the Debian packages of the programs that are missing."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = sorted(
        {package for tool, package in tools.items() if not shutil.which(tool, path=path)}
    )
    if missing:
        raise EmulatorError(
            f"programs of the emulator are not installed; type: sudo apt-get install "
            f"{' '.join(missing)}"
        )


def build(folder: Path, downloads: Path, progress: Progress) -> None:
    """Build disk.img, kernel, initrd, key, key.pub and host_key.pub in the empty `folder`.

    Args:
        downloads: a folder for packages, removed at the end; what an interrupted build has left
            there is not downloaded again.
    """
    check_tools()
    root = folder / "root"
    archives = _download(downloads, progress)
    _skeleton(root)
    for number, archive in enumerate(archives):
        progress(0.5 + 0.35 * number / len(archives), f"unpacking {archive.name.split('_')[0]}")
        _unpack(archive, root)
    progress(0.85, "configuring the system")
    _configure(root, folder)
    _boot_files(root, folder)
    progress(0.9, "making the disk")
    disk = folder / "disk.img"
    _run(["mke2fs", "-q", "-t", "ext4", "-L", "edgesparse", "-d", root, disk, f"{DISK_MB}M"])
    shutil.rmtree(root)
    shutil.rmtree(downloads)


def copy_sparse(source: Path, folder: Path) -> None:
    """Copy an image into an empty folder, without its disk's empty blocks."""
    _run(["cp", "--archive", "--sparse=always", "--reflink=auto", f"{source}/.", folder])


def _download(apt: Path, progress: Progress) -> list[Path]:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    text = _APT.format(folder=apt)
    sources = os.environ.get(SOURCES_VARIABLE)
    if sources:
        text += f'Dir::Etc::SourceList "{Path(sources).resolve()}";\nDir::Etc::SourceParts "-";\n'
    config = apt / "apt.conf"
    config.write_text(text)
    environment = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
    hint = (
        f"the arm64 packages come from this machine's apt sources; if those have no arm64, set "
        f"{SOURCES_VARIABLE} to a Debian sources.list"
    )
    progress(0.01, "reading package lists")
    _run(["apt-get", "-qq", "update"], environment, hint)
    # An earlier build may have left packages that were replaced since.
    _run(["apt-get", "-qq", "autoclean"], environment)
    progress(0.1, "downloading about 100 MB of Debian packages")

    def show(percent: float) -> None:
        progress(0.1 + 0.4 * percent / 100, "downloading about 100 MB of Debian packages")

    _run_apt(["-qq", "-y", "--download-only", "install", *PACKAGES], environment, hint, show)
    return sorted((apt / "cache/archives").glob("*.deb"))


def _run_apt(
    words: Sequence[str],
    environment: Mapping[str, str],
    hint: str,
    show: Callable[[float], None],
) -> None:
    """Run apt-get, which reports the percentage of its downloads."""
    reading, writing = os.pipe()
    argv = [*BOUND, "apt-get", "-o", f"APT::Status-Fd={writing}", *words]
    with tempfile.TemporaryFile() as output, os.fdopen(reading, errors="replace") as status:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
        with process:
            try:
                for line in status:  # dlstatus:NUMBER:PERCENT:TEXT
                    kind, _, percent, *_ = [*line.split(":"), "", ""]
                    if kind == "dlstatus":
                        show(min(100.0, max(0.0, float(percent))))
            except BaseException:
                process.kill()
                raise
        output.seek(0)
        if process.returncode:
            reason = last_line(output.read().decode(errors="replace").strip())
            raise EmulatorError(f"apt-get failed while the image was built: {reason}; {hint}")


def _run(
    argv: Sequence[str | Path], environment: Mapping[str, str] | None = None, hint: str = ""
) -> str:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    done = subprocess.run(
        [*BOUND, *map(str, argv)],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env={**(environment or os.environ), "PATH": path},
        check=False,
    )
    if done.returncode:
        reason = last_line(done.stderr.strip() or done.stdout)
        raise EmulatorError(
            f"{argv[0]} failed while the image was built: {reason}" + (f"; {hint}" if hint else "")
        )
    return done.stdout


def _skeleton(root: Path) -> None:
    """Create a merged /usr as in Debian: /bin and others are links."""
    for name in ("usr/bin", "usr/sbin", "usr/lib", "etc/ssh", "proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")


def _unpack(archive: Path, root: Path) -> None:
    # Documentation is not needed on the device.
    skipped = [f"--exclude=./usr/share/{name}" for name in ("doc", "man", "locale", "info")]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE
    ) as source:
        done = subprocess.run(
            [
                *BOUND,
                "tar",
                "-x",
                "--keep-directory-symlink",
                "--no-same-owner",
                *skipped,
                "-C",
                root,
            ],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or source.returncode:
        raise EmulatorError(f"{archive.name} cannot be unpacked: {done.stderr.strip()[:200]}")


def _configure(root: Path, folder: Path) -> None:
    """Configure what package scripts would, and a user who logs in with a new key."""
    etc = root / "etc"
    python = next(iter(sorted((root / "usr/bin").glob("python3.[0-9]*"))), None)
    if python is None:
        raise EmulatorError("the Debian packages have no python3")
    for link, target in (("sh", "dash"), ("python3", python.name)):
        link_path = root / "usr/bin" / link
        link_path.unlink(missing_ok=True)
        link_path.symlink_to(target)
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        f"{USER}:x:{UID}:{UID}:{USER}:/home/{USER}:/bin/bash\n"
    )
    (etc / "group").write_text(f"root:x:0:\nnogroup:x:65534:\n{USER}:x:{UID}:\n")
    # A star: no password is valid, only the key.
    (etc / "shadow").write_text(f"root:*:1::::::\nsshd:*:1::::::\n{USER}:*:1::::::\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "ssh/sshd_config").write_text(_SSHD)
    host_key = etc / "ssh/ssh_host_ed25519_key"
    host_key.unlink(missing_ok=True)
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", host_key])
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgesparse", "-f", folder / "key"])
    shutil.copyfile(f"{host_key}.pub", folder / "host_key.pub")
    home = root / "home" / USER
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    shutil.copyfile(folder / "key.pub", home / ".ssh/authorized_keys")
    init = root / "usr/sbin/init"
    init.unlink(missing_ok=True)
    library = f"/usr/lib/{python.name}"
    modules = " ".join(f"{library}/{folder}" for folder in ("", *COMPILED))
    init.write_text(_INIT.format(name="edgesparse", user=USER, uid=UID, step=STEP, modules=modules))
    init.chmod(0o755)


def _boot_files(root: Path, folder: Path) -> None:
    kernel = next(iter(sorted((root / "boot").glob("vmlinuz-*"))), None)
    if kernel is None:
        raise EmulatorError("the Debian packages have no kernel for arm64")
    shutil.copyfile(kernel, folder / "kernel")
    initrd = folder / "initrd-root"
    (initrd / "bin").mkdir(parents=True)
    (initrd / "modules").mkdir()
    shutil.copy2(root / "usr/bin/busybox", initrd / "bin/busybox")
    for name in MODULES:
        _copy_module(root, name, initrd / "modules")
    init = initrd / "init"
    init.write_text(_INITRD.format(modules=" ".join(MODULES)))
    init.chmod(0o755)
    names = "\n".join(str(p.relative_to(initrd)) for p in sorted(initrd.rglob("*")))
    with (folder / "initrd").open("wb") as target:
        done = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
            input=names.encode(),
            stdout=target,
            stderr=subprocess.PIPE,
            cwd=initrd,
            check=False,
        )
    if done.returncode:
        raise EmulatorError(f"cpio failed: {done.stderr.decode(errors='replace')[:200]}")
    shutil.rmtree(initrd)
    shutil.rmtree(root / "boot")
    # The required modules are in the ramdisk; the others have 300 MB.
    shutil.rmtree(root / "usr/lib/modules", ignore_errors=True)


def _copy_module(root: Path, name: str, folder: Path) -> None:
    for path in (root / "usr/lib/modules").rglob(f"{name}.ko*"):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        (folder / f"{name}.ko").write_bytes(content)
        return
    # Some are built into the kernel, depending on its version.
