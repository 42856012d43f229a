"""From a device file to its transport."""

from __future__ import annotations

from edgesparse.devices.local import LocalTransport
from edgesparse.devices.transport import Transport
from edgesparse.spec.device import Device


def connect(device: Device) -> Transport:
    """Open the transport that the device file names. Raises DeviceError."""
    return LocalTransport(device.name, device.connect.local, device.workdir)
