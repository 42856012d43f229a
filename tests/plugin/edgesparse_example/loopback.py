"""A transport to this machine."""

from edgesparse.devices.transport.local import LocalTransport
from edgesparse.spec.device import Local


def loopback(name, workdir, folder):
    """Return a connection whose files are in a folder of the workdir."""
    return LocalTransport(name, Local(), f"{workdir}/{folder}")
