"""Systems that a unit can run: what their Python, C library and processor take.

A target is what an overlay (docs/provision.md) is made for. Its packages are in ``locks/NAME.txt``, by version and hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_vad.errors import ProfileError, did_you_mean

LOCKS = Path(__file__).with_name("locks")
DEBIAN = "https://deb.debian.org/debian"
UBUNTU_PORTS = "http://ports.ubuntu.com/ubuntu-ports"


@dataclass(frozen=True, slots=True)
class Target:
    """A system. architecture: as ``uname -m`` prints it; python, glibc: the versions that it comes with.

    mirror, suite: where the headers of its Python are, for the packages that are compiled for it.
    """

    name: str
    system: str
    architecture: str
    python: str
    glibc: tuple[int, int]
    mirror: str
    suite: str

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of the wheels that run there, best first (PEP 600)."""
        major, newest = self.glibc
        modern = [f"manylinux_{major}_{minor}_{self.architecture}" for minor in range(newest, 16, -1)]
        return (*modern, f"manylinux2014_{self.architecture}")

    @property
    def tag(self) -> str:
        """Python and ABI of its extension modules: ``cp313``."""
        return f"cp{self.python.replace('.', '')}"

    @property
    def lock(self) -> Path:
        return LOCKS / f"{self.name}.txt"


TARGETS = {
    target.name: target
    for target in (
        Target(
            "raspberry_pi_os_bookworm", "Raspberry Pi OS bookworm, 64-bit", "aarch64", "3.11", (2, 36), DEBIAN, "bookworm"
        ),
        Target("raspberry_pi_os_trixie", "Raspberry Pi OS trixie, 64-bit", "aarch64", "3.13", (2, 41), DEBIAN, "trixie"),
        Target("jetpack_6", "JetPack 6 (Ubuntu 22.04)", "aarch64", "3.10", (2, 35), UBUNTU_PORTS, "jammy-updates"),
        Target("debian_bookworm", "Debian bookworm, x86-64", "x86_64", "3.11", (2, 36), DEBIAN, "bookworm"),
        Target("debian_trixie", "Debian trixie, x86-64", "x86_64", "3.13", (2, 41), DEBIAN, "trixie"),
    )
}
# The system that a board of that profile most likely runs. jetson_nano stops at JetPack 4, whose Python is too old.
USUAL = {
    "raspberry_pi_zero_2w": "raspberry_pi_os_trixie",
    "raspberry_pi_4": "raspberry_pi_os_trixie",
    "raspberry_pi_5": "raspberry_pi_os_trixie",
    "jetson_orin_nano": "jetpack_6",
    "jetson_agx_orin": "jetpack_6",
    "intel_openvino": "debian_trixie",
    "desktop_cpu": "debian_trixie",
    "desktop_cuda": "debian_trixie",
}


def target_of(name: str | None, profile: str) -> Target:
    """The target of that name, else the usual one of a profile. Raises ProfileError."""
    chosen = name or USUAL.get(profile)
    if chosen is None:
        raise ProfileError(f"no target is usual for the profile {profile}; choose one with --target: {', '.join(TARGETS)}")
    if chosen not in TARGETS:
        raise ProfileError(
            f"--target {chosen}: no such target{did_you_mean(chosen, TARGETS)}; there are {', '.join(TARGETS)}"
        )
    return TARGETS[chosen]
