"""Writes edgesparse/devices/setup/wheels.json anew: `make lock` (needs uv)."""

import json
import re
import subprocess

from edgesparse.devices.setup.wheels import LOCK, RELEASES

COMPILE = ("uv", "pip", "compile", "-", "--quiet", "--python-platform", "x86_64-manylinux_2_40",
           "--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate",
           "--no-emit-index-url", "--no-emit-find-links")  # fmt: skip


def resolved(requirement: str, minor: int) -> dict[str, list[str]]:
    """What a runtime needs on a Python, and the digests of each package's wheels."""
    # tflite-runtime cannot work with numpy 2.
    bounds = ["numpy<2" if minor < 13 else "numpy>=2"]
    # uv ignores upper bounds of Requires-Python; pip does not, and later versions are for 3.10.
    bounds += ["backports-strenum<1.3"] * (minor > 10 and requirement.startswith("ai-edge-litert"))
    done = subprocess.run(
        [*COMPILE, "--python-version", f"3.{minor}"],
        input="\n".join([requirement, *bounds]) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    blocks = re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)
    return {
        block.split()[0]: sorted(re.findall(r"sha256:([0-9a-f]{64})", block))
        for block in blocks
        if "==" in block
    }


def main() -> None:
    packages: dict[str, dict[str, list[str]]] = {}
    digests: dict[str, list[str]] = {}
    for name, releases in RELEASES.items():
        for release in releases:
            requirement = f"{name}=={release.version}"
            for minor in release.minors:
                needed = resolved(requirement, minor)
                packages.setdefault(requirement, {})[f"3.{minor}"] = sorted(needed)
                digests.update(needed)
    LOCK.write_text(json.dumps({"packages": packages, "sha256": digests}, indent=1) + "\n")


if __name__ == "__main__":
    main()
