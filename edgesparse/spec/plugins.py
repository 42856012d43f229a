"""Entry points of installed distributions that extend edgesparse."""

from __future__ import annotations

from importlib import metadata


def plugins(package: str) -> dict[str, str]:
    """Return references by name from installed distributions for a package such as "models": their
    entry points of the group edgesparse.models. None of their code is imported."""
    return {
        point.name: point.value for point in metadata.entry_points(group=f"edgesparse.{package}")
    }
