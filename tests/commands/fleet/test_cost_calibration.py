"""The delegate's cost model against this machine."""

import platform
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from edgesparse.commands.fleet.cost_calibration import LIMITS, delegate_factors
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.device import Local
from tests.delegate.test_prediction import features

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loads", [pytest.param(True, marks=pytest.mark.full), False])
def test_a_device_says_how_far_the_model_is_off(tmp_path, loads):
    runtime = RuntimeInfo(name="ai-edge-litert", version=version("ai-edge-litert"))
    target = SimpleNamespace(
        device=SimpleNamespace(name="local", loads_edgesparse=loads),
        host=SimpleNamespace(machine=platform.machine(), cpu_flags=frozenset(features())),
        runtimes=(runtime,),
        transport=LocalTransport("local", Local(), str(tmp_path / "work")),
    )
    factors = delegate_factors(target, lambda *_: None)
    if not loads:
        assert factors == {}
    else:
        assert LIMITS[0] <= factors["ai-edge-litert"] <= LIMITS[1]
        print(factors)
