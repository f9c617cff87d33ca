"""Whether a board is fit for edge-vad: processor, memory, heat, disk, clock, permissions. Readers take the root folder.

A check never changes anything, but for a small file that the disk's check writes, syncs and deletes.
"""

from __future__ import annotations

import ctypes
import grp
import os
import platform
import stat
import statistics
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_vad import telemetry

State = Literal["ok", "warning", "bad"]
ROOT = Path("/")
YEAR_2024 = 1_704_067_200
HOT_C, TOO_HOT_C = 80.0, 90.0
LITTLE_MB, TOO_LITTLE_MB = 256, 96
SLOW_SYNC_MS = 200.0
N_SYNCS = 5
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
NODES = {"video": ("dev/video*", "dev/media*", "dev/dma_heap/*"), "gpio": ("dev/gpiochip*",), "render": ("dev/dri/render*",)}
DYNAMIC = ("intel_pstate", "intel_cpufreq", "amd-pstate", "amd-pstate-epp")  # whose powersave still clocks up


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a doctor: what was looked at, how it is, and what to do where it is not well."""

    state: State
    what: str
    text: str
    advice: str = ""


def board(root: Path = ROOT) -> Iterator[Check]:
    """Everything about the board itself."""
    yield user_land(root)
    yield memory(root)
    yield from heat(root)
    yield from clock_speed(root)


def user_land(root: Path = ROOT, bits: int = 8 * struct.calcsize("P"), machine: str = platform.machine()) -> Check:
    """Most packages have no builds for 32-bit ARM; a 64-bit kernel may well run a 32-bit user land."""
    text = f"{telemetry.model(root) or 'unknown board'}, {machine}, {bits}-bit, Python {platform.python_version()}"
    if bits == 64:
        return Check("ok", "system", text)
    return Check("bad", "system", text, "install a 64-bit system: ONNX Runtime has no builds for this one")


def memory(root: Path = ROOT) -> Check:
    """Memory that is left."""
    total, left = telemetry.total_mb(root), telemetry.available_mb(root)
    if left is None:
        return Check("warning", "memory", "the system does not say how much there is")
    text = f"{left:,.0f} MB of {total or 0:,.0f} MB are free"
    if left >= LITTLE_MB:
        return Check("ok", "memory", text)
    advice = "stop other programs, or boot without a desktop (sudo systemctl set-default multi-user.target)"
    return Check("bad" if left < TOO_LITTLE_MB else "warning", "memory", text, advice)


def heat(root: Path = ROOT) -> Iterator[Check]:
    """Temperature, and what slowed the board down."""
    cooling = "add a heat sink or a fan, and let air to it"
    degrees = telemetry.temperature_c(root)
    if degrees is None:
        yield Check("ok", "temperature", "this board does not tell its temperature")
    elif degrees < HOT_C:
        yield Check("ok", "temperature", f"{degrees:g} C")
    else:
        yield Check("bad" if degrees >= TOO_HOT_C else "warning", "temperature", f"{degrees:g} C", cooling)
    told = telemetry.throttled(root)
    if told is None:
        return
    now = [text for text in told if not text.endswith("since boot")]
    advice = "use the board's own power supply and a short cable" if "voltage" in " ".join(told) else cooling
    if not told:
        yield Check("ok", "throttling", "none since boot")
    else:
        yield Check("bad" if now else "warning", "throttling", ", ".join(now or told), advice)


def clock_speed(root: Path = ROOT) -> Iterator[Check]:
    """How the kernel chooses the processor's clock."""
    governor, clock = telemetry.governor(root), telemetry.clock_mhz(root)
    if governor is None:
        return
    driver = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver")
    text = f"governor {governor}" + (f", {clock:g} MHz now" if clock else "")
    if "powersave" in governor and driver not in DYNAMIC:
        advice = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Check("warning", "clock speed", f"{text}: the slowest clock at all times", advice)
    else:
        yield Check("ok", "clock speed", text)


def wall_clock(now: float | None = None, synchronised: bool | None = None, root: Path = ROOT) -> Check:
    """The clock that dates records; detection itself uses the monotonic one."""
    now = time.time() if now is None else now
    synchronised = _synchronised() if synchronised is None else synchronised
    shown = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC"
    advice = "sudo timedatectl set-ntp true, and let it reach a time server"
    if now < YEAR_2024:
        return Check("bad", "clock", f"{shown}: it was never set; records will be dated wrong", advice)
    if synchronised:
        return Check("ok", "clock", f"{shown}, synchronised")
    battery = any(root.glob("sys/class/rtc/rtc*"))
    text = f"{shown}, not synchronised" + ("" if battery else ", and no clock with a battery keeps it without power")
    return Check("warning", "clock", text, advice)


def disk(folder: Path, wanted_mb: float, what: str = "disk") -> Check:
    """Whether a folder takes a small synced file, how fast, and whether what is to be kept there has room."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        space = os.statvfs(there)
        syncs_ms = _time_syncs(there)
    except OSError as error:
        read_only = "the medium is read-only: mount it writable, or replace it (dmesg)"
        advice = read_only if error.errno == 30 else f"give it to the user of the unit: sudo chown -R USER {folder}"
        return Check("bad", what, f"{there} cannot be written: {error.strerror}", advice)
    free_mb = space.f_bavail * space.f_frsize / 2**20
    sync_ms = statistics.median(syncs_ms)
    text = f"{folder}: {free_mb:,.0f} MB free, {wanted_mb:,.0f} MB wanted, a synced write takes {sync_ms:.1f} ms"
    if free_mb < min(wanted_mb, 64):
        return Check("bad", what, text, "free some space")
    if free_mb < wanted_mb:
        return Check("warning", what, text, "free some space, or lower log_quota_mb and media.quota_mb")
    if sync_ms > SLOW_SYNC_MS:
        return Check("warning", what, text, "each alarm waits that long: use a faster medium")
    return Check("ok", what, text)


@dataclass(frozen=True, slots=True)
class User:
    """Who is asked for: a user's id and all groups."""

    name: str
    uid: int
    groups: frozenset[int]

    @classmethod
    def me(cls) -> User:
        """The user of this process."""
        return cls(_user_name(), os.getuid(), frozenset({os.getgid(), *os.getgroups()}))

    def may(self, path: Path, wanted: int) -> bool:
        """Whether mode bits (4 read, 2 write, 1 execute) let the user; access lists are not looked at."""
        found = path.stat()
        if self.uid == 0:
            return True
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups else 0
        return found.st_mode >> shift & wanted == wanted

    def may_read(self, path: Path) -> bool:
        """Whether the user reaches a file or a folder and may read it."""
        try:
            reached = {parent for way in (path.absolute(), path.resolve()) for parent in way.parents}
            return all(self.may(parent, 1) for parent in reached) and self.may(path, 5 if path.is_dir() else 4)
        except OSError:
            return False


def permissions(kinds: Iterable[str], user: User, root: Path = ROOT) -> Iterator[Check]:
    """Whether the user may open the device files of these kinds (video, gpio, render), where there are any."""
    for kind in kinds:
        nodes = sorted(path for pattern in NODES[kind] for path in root.glob(pattern) if not path.is_dir())
        closed = [path for path in nodes if not user.may(path, 6)]
        if not nodes:
            continue
        if not closed:
            yield Check("ok", f"{kind} devices", f"{user.name} may use {_names(nodes, root)}")
            continue
        group = _group_name(closed[0].stat())
        advice = f"sudo usermod --append --groups {group} {user.name}, then log in again"
        yield Check("bad", f"{kind} devices", f"{user.name} may not use {_names(closed, root)}", advice)


def _names(paths: list[Path], root: Path) -> str:
    names = [f"/{path.relative_to(root)}" for path in paths]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _group_name(found: os.stat_result) -> str:
    try:
        return grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        return str(found.st_gid)


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _time_syncs(folder: Path) -> list[float]:
    """Milliseconds that small synced writes took."""
    path = folder / f".edge-vad-doctor-{os.getpid()}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    try:
        took = []
        for _ in range(N_SYNCS):
            start = time.perf_counter()
            os.write(handle, b"x" * 512)
            os.fdatasync(handle)
            took.append(1000 * (time.perf_counter() - start))
        return took
    finally:
        os.close(handle)
        path.unlink()


def _synchronised() -> bool:
    """What the kernel knows of whoever keeps its clock: systemd-timesyncd, chrony, ntpd."""
    if (ROOT / "run/systemd/timesync/synchronized").exists():
        return True
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))) not in (-1, TIME_ERROR)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
