"""A unit as a systemd service that may do nothing but its work. Sources: systemd.service(5), systemd.exec(5).

The service runs as a user of its own that systemd makes up (DynamicUser), or as one that exists. Everything is read-only
for it but its state folder and what the configuration names; devices are those of cameras, inputs and outputs.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edge_vad
from edge_vad.device import Device, load_device
from edge_vad.errors import OutputError, ProfileError
from edge_vad.files import link_atomically, make_folder, write_atomically, writing
from edge_vad.health import User
from edge_vad.profile import load_profile, names

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")  # there where systemd is at work
STATE = Path("/var/lib/edge-vad")
USER = "edge-vad"
MARK = "# Written by edge-vad service install"
GROUPS = ("video", "render", "gpio")
HOMES = ("/home/", "/root/", "/run/user/")
CREDENTIAL = "device.yaml"
START_S = 300.0
WANTED_BY = "multi-user.target"

TEMPLATE = """{mark} --config {config}
# After a change of the configuration: systemctl restart {name}; after another camera, sink or folder: install it again.
[Unit]
Description=edge-vad: video anomaly detection, unit {unit}
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=60
ExecStart={command}
Restart=always
RestartSec=5
TimeoutStartSec=180
TimeoutStopSec=10
# The unit ends its capture processes itself; one that the kernel ends for its memory is started again.
KillMode=mixed
OOMPolicy=continue
MemoryMax=75%
Environment=ORT_DISABLE_TELEMETRY=1
SyslogIdentifier={log_name}
LogRateLimitIntervalSec=30
LogRateLimitBurst=1000

{user}
StateDirectory=edge-vad
StateDirectoryMode=0750
CacheDirectory=edge-vad
CacheDirectoryMode=0700
# A folder of this unit alone: systemd removes it when the unit stops.
RuntimeDirectory=edge-vad/{unit}
{paths}ProtectSystem=strict
ProtectHome={home}
PrivateTmp={private_tmp}
{devices}
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# AF_NETLINK: how libudev finds cameras.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
{network}SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
LimitCORE=0

[Install]
WantedBy={wanted_by}
"""
# Those of no board are ignored there. char-video4linux: cameras; media, dma_heap, vcio, vchiq: of a Raspberry Pi.
DEVICES = """DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw
DeviceAllow=char-dma_heap rw
DeviceAllow=char-drm rw
DeviceAllow=char-gpiochip rw
DeviceAllow=/dev/vcio rw
DeviceAllow=/dev/vchiq rw"""
# A Jetson's cameras and GPUs have dozens of device files, and a socket of the camera service in /tmp.
OPEN_DEVICES = "DevicePolicy=auto"
LOCAL_SINKS = ("jsonl", "gpio")
LOCAL_CAMERAS = ("/dev/", "v4l2:", "picamera2:", "csi:", "synthetic:", "images:", "opencv:/")
NO_NETWORK = """# Nothing in the configuration is reached over a network: none is.
IPAddressDeny=any
IPAddressAllow=localhost
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A service file. name: with its ending; text: what is in it."""

    name: str
    text: str


def service_of(config: Path, user: str | None = None, python: str = sys.executable) -> Service:
    """The service of a configuration. user: one that exists. Raises ProfileError where it could not run as a service."""
    config = config.absolute()
    device = load_device(config)
    profile = load_profile(device.profile, device.set)
    who = _user(user)
    check_paths(config, device, user)
    _check_readable(device, who, python)
    gpu = any(choice.device != "cpu" for choice in profile.inference.choices)
    jetson = any(c.source.startswith(("csi:", "gst:", "gstreamer:")) for c in device.cameras.values())
    hidden = not who.may_read(config)
    read = [config, Path(python), Path(edge_vad.__file__), *(path for _, path in _named_paths(device))]
    text = TEMPLATE.format(
        mark=MARK,
        config=config,
        name=file_name(device.name),
        wanted_by=WANTED_BY,
        unit=device.name,
        log_name=Path(file_name(device.name)).stem,
        command=_command(config, python, hidden),
        user=_user_lines(user),
        paths=_path_lines(device, config if hidden else None),
        home="read-only" if any(str(path).startswith(HOMES) for path in read) else "yes",
        private_tmp="no" if jetson else "yes",
        network=NO_NETWORK if _is_local(device) else "",
        devices=OPEN_DEVICES if jetson or gpu else DEVICES,
    )
    return Service(file_name(device.name), text)


def file_name(unit: str) -> str:
    """The name of a unit's service file."""
    return "edge-vad.service" if unit == "edge-vad" else f"edge-vad-{unit}.service"


def check_paths(config: Path, device: Device, user: str | None = None) -> None:
    """ProfileError where a service could not use what a configuration names. user: as in `service_of`."""
    for key, path in _named_paths(device):
        if not path.is_absolute():
            raise ProfileError(f"{config}: {key} {path}: a service has no current folder: write the whole path")
    _check_folders(config, device, user)


def install(service: Service) -> None:
    """Write it, have it start with the device, and start it now. Raises OutputError."""
    _need_systemd()
    write_atomically(UNITS / service.name, service.text.encode())
    _systemctl("daemon-reload")
    _systemctl("enable", service.name)
    _systemctl("restart", service.name)


def prepare(service: Service) -> None:
    """Write it and have it start with the device, also into an image where no systemd runs. Raises OutputError."""
    _need_root()
    wanted_by = UNITS / f"{WANTED_BY}.wants"
    with writing(wanted_by):
        make_folder(wanted_by)
        write_atomically(UNITS / service.name, service.text.encode())
        link_atomically(wanted_by / service.name, str(UNITS / service.name))


def uninstall(unit: str | None = None) -> str:
    """Stop it, and take it away; its data stays. unit: its name, where there are several. Raises OutputError."""
    _need_systemd()
    found = installed()
    if unit is not None and unit not in found:
        raise OutputError(f"no service of a unit {unit!r} is installed (installed: {', '.join(found) or 'none'})")
    if unit is None and len(found) != 1:
        raise OutputError(f"name the unit to uninstall: {', '.join(found)}" if found else "no service is installed")
    path = found[unit or next(iter(found))]
    _systemctl("disable", "--now", path.name)
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror}") from error
    _systemctl("daemon-reload")
    return path.name


def installed() -> dict[str, Path]:
    """Service files that `install` wrote, by the name of their unit."""
    found = {}
    for path in sorted(UNITS.glob("edge-vad*.service")):
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
            found[path.stem.removeprefix("edge-vad-")] = path
    return found


def _command(config: Path, python: str, hidden: bool) -> str:
    """A configuration that only root reads, such as one with passwords, is handed over by systemd."""
    named = f"${{CREDENTIALS_DIRECTORY}}/{CREDENTIAL}" if hidden else quoted(config)
    return f"{quoted(Path(python))} -m edge_vad run --config {named}"


def quoted(path: Path) -> str:
    """A path as systemd reads it in a list of words. Raises ProfileError where it cannot be written."""
    text = str(path)
    if not text.isprintable():
        raise ProfileError(f"{text!r}: a path with such characters cannot be in a service; rename it")
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(character, escaped)
    return f'"{text}"' if set(text) & set(" ';\\\"") else text


def _user(name: str | None) -> User:
    """Who the service runs as; a user that systemd makes up may what everybody may."""
    if name is None:
        return User(USER, -1, frozenset())
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        advice = f"sudo useradd --system --no-create-home {name}"
        raise ProfileError(f"--user {name}: no such user; make one ({advice}), or leave it out") from error
    groups = {entry.pw_gid, *(g.gr_gid for g in grp.getgrall() if name in g.gr_mem or g.gr_name in GROUPS)}
    return User(name, entry.pw_uid, frozenset(groups))


def _user_lines(user: str | None) -> str:
    present = {group.gr_name for group in grp.getgrall()}
    groups = [group for group in GROUPS if group in present]
    lines = [f"User={user}"] if user else ["DynamicUser=yes", f"User={USER}"]
    return "\n".join([*lines, *([f"SupplementaryGroups={' '.join(groups)}"] if groups else [])])


def _path_lines(device: Device, credential: Path | None) -> str:
    """Folders that are written beside the state folder, and the configuration where only root reads it."""
    lines = [f"ReadWritePaths={quoted(path)}" for path in sorted(_written(device)) if not _in_state(path)]
    lines += [f"LoadCredential={CREDENTIAL}:{quoted(credential)}"] if credential else []
    return "".join(f"{line}\n" for line in lines)


def _named_paths(device: Device) -> Iterator[tuple[str, Path]]:
    """Everything in a configuration that is a path of this machine, with the key that names it."""
    for name, camera in device.cameras.items():
        yield from ((f"cameras.{name}.bundle:", Path(camera.bundle)),) if camera.bundle else ()
        yield from ((f"cameras.{name}.store:", Path(camera.store)),) if camera.store else ()
    yield from (("data:", Path(device.data)),) if device.data else ()
    yield from (("profile:", Path(device.profile)),) if device.profile not in names() else ()
    yield from (("sinks:", path) for path in _sink_files(device))


def _sink_files(device: Device) -> list[Path]:
    split = (sink.partition(":") for sink in device.sinks)
    return [Path(location) for kind, _, location in split if kind == "jsonl" and location not in ("", "-")]


def _written(device: Device) -> set[Path]:
    stores = {Path(camera.store) for camera in device.cameras.values() if camera.store}
    return stores | ({Path(device.data)} if device.data else set()) | {path.parent for path in _sink_files(device)}


def _is_local(device: Device) -> bool:
    """Whether cameras, sinks and page need no network; what is not known may need it."""
    cameras = all(c.source.startswith(LOCAL_CAMERAS) or c.source.isdigit() for c in device.cameras.values())
    sinks = all(sink.partition(":")[0] in LOCAL_SINKS for sink in device.sinks)
    return cameras and sinks and (not device.page.enabled or device.page.host in ("127.0.0.1", "::1", "localhost"))


def _in_state(path: Path) -> bool:
    return path == STATE or STATE in path.parents


def _check_readable(device: Device, user: User, python: str) -> None:
    """ProfileError now instead of a service that fails again and again."""
    profile = [Path(device.profile)] if device.profile not in names() else []
    bundles = [Path(camera.bundle) for camera in device.cameras.values() if camera.bundle]
    for path in [Path(python), Path(edge_vad.__file__), *profile, *bundles]:
        if not path.exists():
            raise ProfileError(f"{path}: is not there; the service would not start")
        if not user.may_read(path):
            really = f" ({path.resolve()})" if path.resolve() != path else ""
            advice = f"move it (/opt, /etc/edge-vad, {STATE}), or run as a user who may: --user NAME"
            raise ProfileError(f"{path}{really}: the service's user {user.name} may not read it; {advice}")


def _check_folders(config: Path, device: Device, user: str | None) -> None:
    """What is written outside the state folder has to belong to a user who stays."""
    for path in sorted(_written(device)):
        if _in_state(path):
            continue
        if user is None:
            raise ProfileError(
                f"{config}: {path} is not below {STATE}: move it there, or name the user it belongs to: --user NAME"
            )
        if not path.is_dir():
            raise ProfileError(f"{path}: is not there; make it: sudo install --directory --owner {user} {path}")


def _need_systemd() -> None:
    if shutil.which("systemctl") is None or not RUNNING.is_dir():
        raise OutputError("systemd does not run here; --dry-run prints the service, and edge-vad run needs none")
    _need_root()


def _need_root() -> None:
    if os.geteuid() != 0:
        raise OutputError("only root may install services: run it with sudo")


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=START_S, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["without a word"])[0]
        raise OutputError(f"systemctl {' '.join(arguments)}: {said}; see journalctl --unit {arguments[-1]}")
