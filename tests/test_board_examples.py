"""The examples for boards: their scripts run on stand-ins for card, root and container engine; their units are judged."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from edge_vad.converters import wheels
from edge_vad.converters.overlay import FIRST_BOOT
from edge_vad.converters.targets import TARGETS

from edge_vad.device import load_device
from edge_vad.health import User
from edge_vad.profile import load_profile
from edge_vad.service import service_of

EXAMPLES = Path(__file__).parent.parent / "firmware_examples"
PI, JETSON = EXAMPLES / "raspberry_pi", EXAMPLES / "jetson"
SEALED, STAGE = PI / "read_only_root", PI / "pi-gen" / "stage-edge-vad"
SCRIPTS = sorted([*PI.rglob("*.sh"), *JETSON.rglob("*.sh"), PI / "cloud-init" / "vendor-data"])
SERVICES = sorted([*PI.rglob("*.service"), *JETSON.rglob("*.service")])
CMDLINE = "console=serial0,115200 root=PARTUUID=1234abcd-02 rootfstype=ext4 fsck.repair=yes rootwait"
FSTAB = """proc            /proc           proc    defaults          0       0
PARTUUID=1234abcd-01  /boot/firmware  vfat    defaults          0       2
PARTUUID=1234abcd-02  /               ext4    defaults,noatime  0       1
"""


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    path = f"{env.pop('PATH', os.environ['PATH'])}:/usr/sbin:/sbin"
    variables = {**os.environ, **env, "PATH": path}
    return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=cwd, env=variables, check=False)


def must(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    done = run(*command, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def units(path: Path) -> configparser.ConfigParser:
    """A systemd file; of keys that are given twice the last one."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment]
    parsed.read(path)
    return parsed


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """As `edge-vad provision` names its parts; install.sh only says that it ran, in the root that it lies in."""
    top = tmp_path / "made" / "edge-vad-overlay"
    write(top / "install.sh", 'echo run >>"$(dirname "$(readlink -f "$0")")/../installed"\n')
    write(top / "overlay.json", "{}")
    write(top / "systemd" / "edge-vad-install.service", FIRST_BOOT)
    write(top / "wheels" / "big.whl", "x" * 300_000)
    made = tmp_path / "overlay.tar"
    with tarfile.open(made, "w") as archive:
        archive.add(top, "edge-vad-overlay")
    return made


# What is written, judged without running it


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    shell = "bash" if script.read_text().startswith("#!/bin/bash") else "sh"
    must(shell, "-n", script)


@needs("shellcheck")
def test_shellcheck_finds_nothing() -> None:
    assert must("shellcheck", *SCRIPTS) == ""


@pytest.mark.parametrize("board", [PI, JETSON], ids=lambda path: path.name)
def test_the_readme_starts_with_its_commands_and_names_every_file(board: Path) -> None:
    text = (board / "README.md").read_text(encoding="utf-8")
    assert re.match(r"# [^\n]+\n\n```sh\n", text)
    for named in re.findall(r"firmware_examples/[\w./-]*\w", text):
        assert (EXAMPLES.parent / named).exists(), named
    for path in board.rglob("*"):
        told = path.name in text or path.name == "README.md" or path.is_relative_to(STAGE)
        assert told or not path.is_file(), f"{path.name} is not in the README"
    assert "None of this was ever run on a" in text.split("## Not tried")[1], "what was not run on a board is said"


@pytest.mark.parametrize("board", [PI, JETSON], ids=lambda path: path.name)
def test_the_configuration_is_one_of_that_board(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(User, "may_read", lambda *_: True)
    device = load_device(board / "device.yaml")
    assert board.name.split("_")[0] in device.profile
    assert load_profile(device.profile, device.set).name == device.profile
    for camera in device.cameras.values():
        assert camera.source.startswith("picamera2:" if board is PI else "csi://")
    if board is PI:  # the container has no service of edge-vad's own
        assert "WatchdogSec=60" in service_of(board / "device.yaml", python=sys.executable).text


def test_cloud_init_files_are_what_cloud_init_reads() -> None:
    user, network = PI / "cloud-init" / "user-data", PI / "cloud-init" / "network-config"
    assert user.read_text().startswith("#cloud-config\n")
    settings = yaml.safe_load(user.read_text())
    assert settings["users"][0]["lock_passwd"] is True and settings["ssh_pwauth"] is False
    assert yaml.safe_load(network.read_text())["network"]["ethernets"]["eth0"]["optional"] is True


@needs("cloud-init")
@pytest.mark.parametrize(("name", "kind"), [("user-data", "cloud-config"), ("network-config", "network-config")])
def test_cloud_init_accepts_its_files(name: str, kind: str) -> None:
    if "--schema-type" not in run("cloud-init", "schema", "--help").stdout:
        pytest.skip("this cloud-init knows no --schema-type")
    must("cloud-init", "schema", "--schema-type", kind, "--config-file", PI / "cloud-init" / name)


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_systemd_accepts_the_services(unit: Path, tmp_path: Path) -> None:
    """Programs of the board count as there; services of others are stood in for."""
    text = re.sub(r"^(Exec\w+=-?)\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE)
    write(tmp_path / unit.name, text)
    for other in {"docker", "nvargus-daemon", "edge-vad-power-mode"} - {unit.stem}:
        write(tmp_path / f"{other}.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / unit.name)
    assert done.returncode == 0 and str(tmp_path) not in done.stderr, done.stderr


def test_the_watchdogs_are_chained() -> None:
    """The board's timer guards systemd, systemd guards the service; the longest the timer takes is 15 s."""
    manager = units(PI / "watchdog.conf")["Manager"]
    assert 0 < int(manager["RuntimeWatchdogSec"]) <= 15
    container = units(JETSON / "edge-vad-container.service")["Service"]
    assert container["Type"] == "notify" and int(container["WatchdogSec"]) == 60 and container["Restart"] == "always"


# A card


def partitioned(path: Path, partitions: list[tuple[int, int, int]]) -> Path:
    """An image with a master boot record. partitions: type, first sector, sectors."""
    table = b"".join(struct.pack("<B3sB3sII", 0, b"", kind, b"", start, size) for kind, start, size in partitions)
    record = bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"
    with path.open("wb") as file:
        file.write(record)
        file.truncate(512 * max(start + size for _, start, size in partitions))
    return path


def table(path: Path) -> list[tuple[int, int, int]]:
    record = path.read_bytes()[446:510] if path.stat().st_size < 1 << 20 else _head(path)[446:510]
    entries = [struct.unpack("<B3sB3sII", record[i : i + 16]) for i in range(0, 64, 16)]
    return [(kind, start, size) for _, _, kind, _, start, size in entries if size]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


class Card:
    """A boot partition: a folder, or the first partition of an image."""

    def __init__(self, folder: Path, image: bool) -> None:
        self.place = folder / ("card.img" if image else "bootfs")
        self._fat = f"{self.place}@@{8192 * 512}" if image else None
        if self._fat:
            partitioned(self.place, [(0x0C, 8192, 16384), (0x83, 24576, 4096)])
            must("mformat", "-i", self._fat, "-T", "16384", "-h", "16", "-s", "63", "-v", "bootfs", "::")
        else:
            self.place.mkdir()

    def write(self, name: str, text: str) -> None:
        if self._fat:
            source = write(self.place.parent / "source", text)
            must("mcopy", "-o", "-i", self._fat, source, f"::{name}")
        else:
            write(self.place / name, text)

    def folder(self, to: Path) -> Path:
        """Its files, as the booted unit sees them."""
        if self._fat:
            to.mkdir()
            must("mcopy", "-s", "-n", "-i", self._fat, "::*", to)
            return to
        return self.place


@pytest.fixture(params=["folder", pytest.param("image", marks=needs("mformat", "partx"))])
def card(request: pytest.FixtureRequest, tmp_path: Path) -> Card:
    made = Card(tmp_path, request.param == "image")
    made.write("cmdline.txt", f"{CMDLINE} resize\n")
    made.write("config.txt", "camera_auto_detect=1\n[cm4]\notg_mode=1\n")
    return made


def prepare(overlay: Path, card: Card, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return run("sh", PI / "prepare_card.sh", overlay, card.place, *options)


def test_a_card_with_cloud_init(card: Card, overlay: Path, tmp_path: Path) -> None:
    card.write("meta-data", "instance_id: rpios-image\n")
    card.write("user-data", "#cloud-config\nhostname: of-the-imager\n")
    for _ in range(2):  # again changes nothing
        assert prepare(overlay, card).returncode == 0
    boot = card.folder(tmp_path / "seen")
    assert (boot / "edge-vad" / "overlay.tar").read_bytes() == overlay.read_bytes()
    assert (boot / "vendor-data").read_text().endswith("exec sh /boot/firmware/edge-vad/first_boot.sh --now\n")
    assert "of-the-imager" in (boot / "user-data").read_text()
    assert (boot / "cmdline.txt").read_text() == f"{CMDLINE} resize\n"
    config = (boot / "config.txt").read_text()
    assert config.endswith("[cm4]\notg_mode=1\n\n[all]\ndtparam=watchdog=on\n")

    root = tmp_path / "root"
    must("sh", boot / "edge-vad" / "first_boot.sh", root)
    assert (root / "opt" / "edge-vad-overlay" / "install.sh").is_file()
    assert [path.name for path in (root / "opt").iterdir()] == ["edge-vad-overlay"]
    wanted = root / "etc/systemd/system/multi-user.target.wants/edge-vad-install.service"
    assert wanted.is_symlink() and wanted.read_text() == FIRST_BOOT and "/opt/edge-vad-overlay/install.sh" in FIRST_BOOT
    assert units(root / "etc/systemd/system.conf.d/edge-vad-watchdog.conf")["Manager"]["RuntimeWatchdogSec"] == "15"


def test_your_own_user_data_goes_onto_the_card(card: Card, overlay: Path, tmp_path: Path) -> None:
    card.write("meta-data", "instance_id: rpios-image\n")
    template = PI / "cloud-init" / "user-data"
    refused = prepare(overlay, card, "--user-data", template)
    assert refused.returncode == 1 and "REPLACE_ME" in refused.stderr
    mine = write(tmp_path / "mine", template.read_text().replace("REPLACE_ME", "AAAAC3Nza me@desk"))
    assert prepare(overlay, card, "--user-data", mine, "--network-config", PI / "cloud-init/network-config").returncode == 0
    boot = card.folder(tmp_path / "seen")
    assert (boot / "user-data").read_text() == mine.read_text()
    assert (boot / "network-config").read_text() == (PI / "cloud-init/network-config").read_text()


def test_a_card_without_cloud_init(card: Card, overlay: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert prepare(overlay, card).returncode == 0
    boot = card.folder(tmp_path / "seen")
    line = (boot / "cmdline.txt").read_text()
    assert line.startswith(f"{CMDLINE} resize systemd.run=/boot/firmware/firstrun.sh ") and line.count("\n") == 1
    assert line.count("systemd.run=") == 1

    root = tmp_path / "root"
    must("sh", boot / "firstrun.sh", boot, root)
    assert (boot / "cmdline.txt").read_text() == f"{CMDLINE} resize\n"
    assert not (boot / "firstrun.sh").exists()
    assert (root / "opt" / "edge-vad-overlay" / "install.sh").is_file()


def test_a_first_boot_that_fails_leaves_a_unit_that_starts(card: Card, overlay: Path, tmp_path: Path) -> None:
    assert prepare(overlay, card).returncode == 0
    boot = card.folder(tmp_path / "seen")
    (boot / "edge-vad" / "overlay.tar").write_bytes(overlay.read_bytes()[:5000])
    root = tmp_path / "root"
    must("sh", boot / "firstrun.sh", boot, root)
    assert (boot / "cmdline.txt").read_text() == f"{CMDLINE} resize\n"
    assert "overlay.tar: FAILED" in (boot / "edge-vad" / "first_boot.log").read_text()
    assert not (root / "opt").exists()


def test_the_imagers_own_first_run_is_kept(card: Card, overlay: Path, tmp_path: Path) -> None:
    hook = "systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"
    card.write("cmdline.txt", f"{CMDLINE} {hook}\n")
    card.write("firstrun.sh", "#!/bin/bash\n\nset +e\n\nimager_custom set_hostname gate-7\nexit 0\n")
    for _ in range(2):
        assert prepare(overlay, card).returncode == 0
    boot = card.folder(tmp_path / "seen")
    lines = (boot / "firstrun.sh").read_text().splitlines()
    assert lines[0] == "#!/bin/bash" and lines[1].startswith("sh /boot/firmware/edge-vad/first_boot.sh ")
    assert lines[2:] == ["", "set +e", "", "imager_custom set_hostname gate-7", "exit 0"]
    assert (boot / "cmdline.txt").read_text() == f"{CMDLINE} {hook}\n"


def test_what_is_not_a_card_or_an_overlay_is_refused(overlay: Path, tmp_path: Path) -> None:
    card = Card(tmp_path, image=False)
    assert "has no cmdline.txt" in prepare(overlay, card).stderr
    card.write("cmdline.txt", f"{CMDLINE}\n")
    card.write("config.txt", "")
    assert "not an overlay" in prepare(write(tmp_path / "site.tar", "nothing"), card).stderr
    assert "no cloud-init" in prepare(overlay, card, "--user-data", write(tmp_path / "mine", "#cloud-config\n")).stderr
    assert "no such folder" in run("sh", PI / "prepare_card.sh", overlay, tmp_path / "sdx").stderr
    assert "no partition table" in run("sh", PI / "prepare_card.sh", overlay, overlay).stderr
    card.write("meta-data", "")
    card.write("vendor-data", "#!/bin/sh\nanother\n")
    done = prepare(overlay, card)
    assert done.returncode == 1 and "has a vendor-data already" in done.stderr


@needs("sfdisk", "mkfs.ext4", "mformat", "partx")
def test_the_data_partition_fills_what_the_root_leaves(overlay: Path, tmp_path: Path) -> None:
    card = Card(tmp_path, image=True)
    card.write("cmdline.txt", f"{CMDLINE} resize\n")
    card.write("config.txt", "")
    script = SEALED / "data_partition.sh"
    assert "give more" in run("sh", script, card.place, "1", "20").stderr
    assert "how many MiB" in run("sh", script, card.place, "16").stderr
    must("sh", script, card.place, "16", "20")
    boot, root, data = table(card.place)
    assert boot == (0x0C, 8192, 16384) and root == (0x83, 24576, 16 * 2048)
    assert data[0] == 0x83 and data[1] >= root[1] + root[2] and data[2] >= 20 * 2048
    with card.place.open("rb") as file:
        file.seek(data[1] * 512 + 1024)
        superblock = file.read(1024)
    assert superblock[0x38:0x3A] == b"\x53\xef" and superblock[0x78:0x88].rstrip(b"\0") == b"edge-vad-data"
    assert "two partitions" in run("sh", script, card.place, "16", "20").stderr
    assert prepare(overlay, card).returncode == 0
    assert "resize" not in (card.folder(tmp_path / "seen") / "cmdline.txt").read_text()


# A read-only root


def installed_root(folder: Path) -> Path:
    """A unit after install.sh: the store was filled by root, the service has not started yet."""
    root = folder / "root"
    write(root / "etc/fstab", FSTAB)
    write(root / "etc/edge-vad/device.yaml", "profile: raspberry_pi_5\n")
    write(root / "opt/edge-vad/0123456789ab/bin/edge-vad", "", 0o755)
    (root / "opt/edge-vad/current").symlink_to("0123456789ab")
    write(root / "var/lib/edge-vad/gate/state/serial.json", '{"serial": 2}')
    write(root / "var/lib/systemd/timesync/clock", "")
    write(root / "etc/resolv.conf", "nameserver 192.0.2.1\n")
    for name in ("etc/rpi", "etc/cloud", "data"):
        (root / name).mkdir()
    return root


def seen(root: Path) -> dict[str, str]:
    """Every file and link below a root."""
    found = {}
    for path in sorted(root.rglob("*")):
        kind = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else "folder"
        found[str(path.relative_to(root))] = kind
    return found


def mounts(fstab: str) -> dict[str, tuple[str, str, set[str]]]:
    """Mount point -> source, type, options."""
    rows = [line.split() for line in fstab.splitlines() if line.strip() and not line.startswith("#")]
    assert all(len(row) == 6 for row in rows)
    return {point: (source, kind, set(options.split(","))) for source, point, kind, options, _, _ in rows}


def written_to(path: str, table: dict[str, tuple[str, str, set[str]]]) -> str | None:
    """The partition (or tmpfs) that a path is written to; None on a read-only one."""
    if path.startswith("/run/"):
        return "tmpfs"  # systemd's own
    point = max((p for p in table if path == p or path.startswith(p.rstrip("/") + "/")), key=len)
    source, kind, options = table[point]
    if "bind" in options:
        return written_to(source, table)
    return None if "ro" in options else "tmpfs" if kind == "tmpfs" else source


def test_sealing_keeps_everything_on_the_data_partition(tmp_path: Path) -> None:
    root = installed_root(tmp_path)
    must("sh", SEALED / "seal.sh", root)
    assert (root / "data/state/gate/state/serial.json").read_text() == '{"serial": 2}'
    assert (root / "data/opt/current/bin/edge-vad").stat().st_mode & 0o111
    assert (root / "data/etc/device.yaml").is_file() and (root / "data/timesync/clock").is_file()
    for parent in ("var/lib", "var/cache"):  # as systemd wants them of a service with DynamicUser
        assert (root / parent / "edge-vad").readlink() == Path("private/edge-vad")
        assert (root / parent / "private").stat().st_mode & 0o777 == 0o700
    for point in mounts((SEALED / "fstab").read_text()):
        assert point in ("/tmp", "/var/tmp", "/var/log") or (root / point[1:]).is_dir(), f"{point}: nothing to mount on"
    for name in ("edge-vad.service.d", "edge-vad-.service.d"):
        assert "RequiresMountsFor=/data " in (root / "etc/systemd/system" / name / "mounts.conf").read_text()
    assert (root / "etc/systemd/system/apt-daily.timer").readlink() == Path("/dev/null")
    assert (root / "etc/cloud/cloud-init.disabled").exists()
    first = seen(root)
    must("sh", SEALED / "seal.sh", root)
    assert seen(root) == first


def test_sealing_that_was_cut_off_is_completed(tmp_path: Path) -> None:
    root = installed_root(tmp_path / "cut")
    whole = installed_root(tmp_path / "whole")
    write(root / "data/.opt/0123456789ab/bin/edge-vad", "half of")  # a copy without its name
    must("sh", SEALED / "seal.sh", root)
    must("sh", SEALED / "seal.sh", whole)
    assert seen(root) == seen(whole)


def test_a_root_without_a_line_in_fstab_is_left_alone(tmp_path: Path) -> None:
    root = installed_root(tmp_path)
    write(root / "etc/fstab", "tmpfs /tmp tmpfs defaults 0 0\n")
    before = seen(root)
    done = run("sh", SEALED / "seal.sh", root)
    assert done.returncode == 1 and "has no line for /" in done.stderr and seen(root) == before


@pytest.fixture
def sealed(tmp_path: Path) -> dict[str, tuple[str, str, set[str]]]:
    root = installed_root(tmp_path)
    must("sh", SEALED / "seal.sh", root)
    return mounts((root / "etc/fstab").read_text())


def service_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What the service may write by its own file: those of a service with DynamicUser lie below private/."""
    monkeypatch.setattr(User, "may_read", lambda *_: True)
    text = service_of(PI / "device.yaml", python=sys.executable).text
    assert "DynamicUser=yes" in text and "ProtectSystem=strict" in text and "PrivateTmp=yes" in text
    places = {"State": "/var/lib/private", "Cache": "/var/cache/private", "Runtime": "/run"}
    for kind, place in places.items():
        yield from (f"{place}/{name}" for name in re.findall(rf"^{kind}Directory=(.+)$", text, re.MULTILINE))
    yield from re.findall(r"^ReadWritePaths=(.+)$", text, re.MULTILINE)
    yield from ("/tmp", "/var/tmp")


def test_every_path_that_is_written_is_writable(
    sealed: dict[str, tuple[str, str, set[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, profile = load_device(PI / "device.yaml"), load_profile("raspberry_pi_5")
    lasting = [str(device.data), *(str(camera.store) for camera in device.cameras.values())]
    layout = (EXAMPLES.parent / "docs" / "store.md").read_text().split("## Layout")[1].split("```\n")[1]
    lasting += [layout.splitlines()[0].rstrip("/"), profile.store.folder]
    behind = [path.replace("/var/lib/edge-vad", "/var/lib/private/edge-vad") for path in lasting]  # through the link
    for path in [*behind, "/etc/edge-vad/device.yaml", profile.trust.keys, "/opt/edge-vad/0123456789ab"]:
        assert written_to(path, sealed) == "LABEL=edge-vad-data", path
    folders = list(service_folders(monkeypatch))
    assert len(folders) >= 5
    for path in [*folders, device.runtime, "/var/log/journal"]:
        assert written_to(path, sealed), f"{path} is read-only"


def test_one_partition_is_written_and_nothing_else(sealed: dict[str, tuple[str, str, set[str]]]) -> None:
    for path in (
        "/usr/bin/python3",
        "/etc/systemd/system/edge-vad.service",
        "/opt/other",
        "/var/lib/dpkg",
        "/boot/firmware",
    ):
        assert written_to(path, sealed) is None, path
    lasting = {written_to(point, sealed) for point, (_, kind, _) in sealed.items() if kind != "proc"} - {None, "tmpfs"}
    assert lasting == {"LABEL=edge-vad-data"}
    for point, (source, _, options) in sealed.items():
        if source.startswith(("/data", "LABEL=")):
            assert {"nodev", "nosuid", "nofail"} <= options, point
    assert "noexec" not in sealed["/opt/edge-vad"][2] | sealed["/data"][2], "the program runs from there"


@pytest.mark.parametrize("code", [0, 1])
def test_an_update_makes_the_root_writable_for_itself_only(tmp_path: Path, code: int) -> None:
    log = tmp_path / "log"
    for name in ("mount", "sync"):
        write(tmp_path / "bin" / name, f'#!/bin/sh\necho {name} "$@" >>{log}\n', 0o755)
    script = write(tmp_path / "install.sh", f'echo install "$@" >>{log}\nexit {code}\n')
    done = run("sh", SEALED / "update.sh", script, "--check", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert done.returncode == code
    assert log.read_text().splitlines() == ["mount -o remount,rw /", "install --check", "sync", "mount -o remount,ro /"]


# An image by pi-gen


def test_the_pi_gen_stage_installs_the_overlay_in_the_image(overlay: Path, tmp_path: Path) -> None:
    """As build.sh of pi-gen runs a stage: prerun.sh, then by number NN-run.sh and, in the root, NN-run-chroot.sh."""
    previous = tmp_path / "stage2" / "rootfs"
    write(previous / "boot/firmware/config.txt", "[cm5]\ndtoverlay=dwc2\n")
    program = r"""
set -e
copy_previous() { mkdir -p "${ROOTFS_DIR}" && cp -a "${PREV_ROOTFS_DIR}/." "${ROOTFS_DIR}/"; }
on_chroot() { sed "s, /opt/, ${ROOTFS_DIR}/opt/,g" | bash -e -; }
export -f copy_previous
cd "${STAGE}"
[ -x prerun.sh ] && ./prerun.sh
source ./EXPORT_IMAGE
for sub in */; do
    cd "${STAGE}/${sub}"
    for i in {00..99}; do
        if [ -x "${i}-run.sh" ]; then "./${i}-run.sh"; fi
        if [ -f "${i}-run-chroot.sh" ]; then on_chroot <"${i}-run-chroot.sh"; fi
    done
done
echo "${IMG_SUFFIX}"
"""
    root = tmp_path / "stage-edge-vad" / "rootfs"
    folders = {"STAGE": str(STAGE), "ROOTFS_DIR": str(root), "PREV_ROOTFS_DIR": str(previous)}
    refused = run("bash", "-c", program, **folders)
    assert refused.returncode != 0 and "EDGE_VAD_OVERLAY" in refused.stderr
    for _ in range(2):  # pi-gen goes on with what is there when it is run again
        assert must("bash", "-c", program, **folders, EDGE_VAD_OVERLAY=str(overlay)) == "-edge-vad\n"
    assert (root / "opt" / "installed").read_text() == "run\nrun\n"
    assert not (root / "opt" / "edge-vad-overlay").exists()
    assert (root / "etc/systemd/system.conf.d/edge-vad-watchdog.conf").is_file()
    assert (root / "boot/firmware/config.txt").read_text().count("\n[all]\ndtparam=watchdog=on\n") == 1


# A container


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_of_a_release_is_built_without_a_network() -> None:
    path = JETSON / "Containerfile"
    assert "docker build --network none " in path.read_text().splitlines()[0]
    found = instructions(path)
    assert {word for word, _ in found} <= {"FROM", "ADD", "COPY", "RUN", "ENV", "VOLUME", "ENTRYPOINT", "CMD"}
    assert found[0] == ("FROM", "edge-vad-base")
    for word, rest in found:
        if word in ("ADD", "COPY"):
            source = rest.split()[0]
            assert source == "overlay.tar" or (JETSON / source).exists(), source
        if word == "RUN":
            assert not re.search(r"\b(apt|apt-get|pip3?|curl|wget|git)\b", rest), rest
    assert [word for word, _ in instructions(JETSON / "Containerfile.base")] == ["FROM", "RUN"]
    assert re.search(r"l4t-jetpack:r36\.", (JETSON / "Containerfile.base").read_text()), "JetPack 6 is L4T 36"


def test_onnxruntime_of_the_jetson_comes_in_the_place_of_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are the same Python module: the README's --wheel must not leave the other one in the overlay."""
    asked: list[str] = []
    monkeypatch.setattr(wheels, "_cached", lambda target, lines, cache: asked.extend(lines) or [])
    gpu = write(tmp_path / "onnxruntime_gpu-1.23.0-cp310-cp310-linux_aarch64.whl", "")
    package = write(tmp_path / "edge_vad-1.0-py3-none-any.whl", "")
    found = wheels.wheels_of(TARGETS["jetpack_6"], ["base"], [gpu, package], ["hnswlib"], tmp_path / "cache")
    assert found == [package, gpu] and asked and not [line for line in asked if line.startswith("onnxruntime")]


def test_container_volumes_are_those_that_the_unit_writes() -> None:
    device = load_device(JETSON / "device.yaml")
    profile = load_profile(device.profile, device.set)
    mounted = re.findall(r"--volume \S*:(/[\w/-]+)", (JETSON / "container.sh").read_text().replace('"', ""))
    for path in (str(device.data), profile.inference.engine_cache, device.runtime):
        assert any(path == volume or path.startswith(f"{volume}/") for volume in mounted), path
    bundle = str(next(iter(device.cameras.values())).bundle)
    assert not any(bundle.startswith(f"{volume}/") for volume in mounted), "a volume would hide the image's bundle"


def test_the_container_is_alive_for_as_long_as_its_unit_writes(tmp_path: Path) -> None:
    log, status = tmp_path / "log", tmp_path / "status"
    status.mkdir()
    # Works for 1.5 s, then hangs: the status file gets old while the container still runs.
    docker = f'#!/bin/sh\n[ "$1" = run ] || exit 0\necho "$@" >{tmp_path}/asked\nfor i in 1 2 3 4 5; do\n'
    docker += f"    touch {status}/edge-vad.json\n    sleep 0.3\ndone\nsleep 6\nexit 7\n"
    write(tmp_path / "bin" / "docker", docker, 0o755)
    write(tmp_path / "bin" / "systemd-notify", f'#!/bin/sh\necho "$(date +%s.%N) $*" >>{log}\n', 0o755)
    settings = {"STATUS": str(status), "FRESH_S": "2", "EVERY_S": "0.2", "IMAGE": "edge-vad:7"}
    done = run("sh", JETSON / "container.sh", PATH=f"{tmp_path}/bin:{os.environ['PATH']}", **settings)
    assert done.returncode == 7, "the service ends as its container did"
    said = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert said[0][1] == "--ready WATCHDOG=1" and {words for _, words in said[1:]} == {"WATCHDOG=1"}
    hung = (status / "edge-vad.json").stat().st_mtime
    assert float(said[-1][0]) < hung + 4.5, "a unit that hangs was reported as alive"
    asked = (tmp_path / "asked").read_text()
    assert asked.endswith("edge-vad:7\n") and "--runtime nvidia" in asked and "/tmp/argus_socket" in asked
