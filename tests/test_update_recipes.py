"""The recipes for Mender and RAUC: called as the engines call them, and by the engines themselves where they are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import update_parts
from update_parts import Releases, id_of, program

from edge_vad.cli import main
from edge_vad.store import Store

ROOT = Path(__file__).resolve().parents[1]
MENDER, RAUC = ROOT / "firmware_examples" / "mender", ROOT / "firmware_examples" / "rauc"
MODULE, HOOK = MENDER / "edge-vad-bundle", RAUC / "hook.sh"
Said = subprocess.CompletedProcess[str]

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare: the engine mounts"
)


def needs(*programs: str) -> pytest.MarkDecorator:
    absent = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, footage: Path, tiny_encoder: Path) -> Releases:
    return Releases.make(tmp_path_factory.mktemp("releases"), footage, tiny_encoder)


@dataclass(frozen=True)
class Unit:
    """A unit in a folder, with the first release confirmed. environment: of whatever updates it."""

    folder: Path
    environment: dict[str, str]

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def run(self, *command: object, **more: str) -> Said:
        words = [str(word) for word in command]
        environment = {**self.environment, **more}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def has_little_patience(self) -> None:
        """For an update that fails: nobody waits a minute for it here."""
        path = self.folder / "update.conf"
        path.write_text(path.read_text().replace("HEALTH_S=60", "HEALTH_S=2"))

    def module(self, state: str, update: Path) -> Said:
        """One call, as Mender makes it: in the folder of the update, which is told too."""
        words = [str(MODULE), state, str(update)]
        return subprocess.run(
            words, cwd=update, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def runs(self, bundle: Path) -> bool:
        """Whether the service is up, and that is the confirmed bundle."""
        active = self.run("systemctl", "is-active", "edge-vad.service").returncode == 0
        return active and self.store.current == id_of(bundle) and self.store.attempts_made is None


@pytest.fixture
def unit(tmp_path: Path, releases: Releases) -> Iterator[Unit]:
    program(tmp_path / "bin" / "systemctl", f'exec {sys.executable} {update_parts.STAND_IN} "$@"')
    program(tmp_path / "bin" / "edge-vad", f'exec {sys.executable} -m edge_vad "$@"')
    (tmp_path / "keys").mkdir()
    shutil.copy(releases.owner, tmp_path / "keys")
    options = ["--store", str(tmp_path / "store"), "--set", f"trust.keys={tmp_path / 'keys'}"]
    assert main(["store", "install", str(releases.first), *options]) == 0
    assert main(["store", "activate", id_of(releases.first), *options]) == 0
    assert main(["store", "confirm", *options]) == 0
    paths = {name: str(tmp_path / name) for name in ("store", "data", "keys")}
    (tmp_path / "device.yaml").write_text(update_parts.device_yaml(**paths, runtime=str(tmp_path / "run")))
    (tmp_path / "edge-vad.service").write_text(update_parts.service(str(tmp_path / "device.yaml")))
    (tmp_path / "update.conf").write_text(
        f"EDGE_VAD={tmp_path}/bin/edge-vad\nSTORE={tmp_path}/store\nSERVICE=edge-vad.service\nHEALTH_S=60\n"
        f'OPTIONS="--set trust.keys={tmp_path}/keys"\n'
    )
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "EDGE_VAD_UPDATE_CONF": str(tmp_path / "update.conf"),
        "SYSTEMD_UNITS": str(tmp_path),
        "SYSTEMD_RUN": str(tmp_path / "systemd"),
    }
    made = Unit(tmp_path, environment)
    yield made
    made.run("systemctl", "stop", "edge-vad.service")


@pytest.fixture
def update(unit: Unit) -> Callable[[Path], Path]:
    """The folder that Mender gives to a module, with the file of an artifact in it."""

    def make(bundle: Path) -> Path:
        folder = unit.folder / "tree"
        for name in ("files", "header", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, folder / "files")
        return folder

    return make


def test_mender_installs_and_commits_what_the_unit_confirms(
    unit: Unit, update: Callable[[Path], Path], releases: Releases
) -> None:
    folder = update(releases.second)
    assert unit.module("SupportsRollback", folder).stdout == "Yes\n"
    assert unit.module("NeedsArtifactReboot", folder).stdout == "No\n"
    for state in ("Download", "SomethingNew", "ArtifactInstall"):
        said = unit.module(state, folder)
        assert said.returncode == 0, (state, said.stderr)
    assert unit.store.current == id_of(releases.second) and unit.store.attempts_made is not None, "it is on trial"
    said = unit.module("ArtifactCommit", folder)
    assert said.returncode == 0, said.stderr
    assert unit.module("Cleanup", folder).returncode == 0
    assert unit.runs(releases.second) and unit.store.serial == 2
    again = unit.module("ArtifactInstall", folder)
    assert again.returncode == 0 and unit.module("ArtifactCommit", folder).returncode == 0, "the same once more"
    assert unit.module("ArtifactRollback", folder).returncode == 0
    assert unit.runs(releases.second), "an update that changed nothing is not taken back"


def test_mender_returns_from_what_the_unit_does_not_confirm(
    unit: Unit, update: Callable[[Path], Path], releases: Releases
) -> None:
    folder = update(releases.smaller)
    assert unit.module("ArtifactInstall", folder).returncode == 0
    assert unit.store.current == id_of(releases.smaller)
    unit.has_little_patience()
    said = unit.module("ArtifactCommit", folder)
    assert said.returncode == 1 and "was not confirmed by the unit" in said.stderr
    assert unit.module("ArtifactRollback", folder).returncode == 0
    assert unit.module("ArtifactFailure", folder).returncode == 0
    assert unit.runs(releases.first)


def test_mender_refuses_what_the_owner_did_not_sign(unit: Unit, update: Callable[[Path], Path], releases: Releases) -> None:
    folder = update(releases.unsigned)
    said = unit.module("ArtifactInstall", folder)
    assert said.returncode != 0 and "not signed" in said.stderr
    assert unit.module("ArtifactRollback", folder).returncode == 0, "Mender calls it after a failed install"
    assert unit.store.current == id_of(releases.first)
    assert not (unit.folder / "systemd").exists(), "nothing was started or stopped"


@needs("mender-artifact")
def test_an_artifact_is_made_of_a_signed_bundle_only(unit: Unit, releases: Releases) -> None:
    out = unit.folder / "site-2.mender"
    refused = unit.run("sh", MENDER / "make-artifact.sh", releases.unsigned, releases.owner, "raspberrypi5", out)
    assert refused.returncode == 1 and "not signed" in refused.stderr and not out.exists()
    made = unit.run("sh", MENDER / "make-artifact.sh", releases.second, releases.owner, "raspberrypi5", out)
    assert made.returncode == 0, made.stderr
    told = unit.run("mender-artifact", "read", out).stdout
    for line in ("Name: site-2", "Type:   edge-vad-bundle", "[raspberrypi5]", "second.evb"):
        assert line in told, told


@needs("mender", "mender-artifact")
@needs_root
def test_the_mender_client_updates_and_returns(unit: Unit, releases: Releases) -> None:
    """A real client without a server: install and commit; then a release that fails its commit."""
    for name, bundle in (("site-2", releases.second), ("site-3", releases.smaller)):
        out = unit.folder / f"{name}.mender"
        said = unit.run("sh", MENDER / "make-artifact.sh", bundle, releases.owner, "raspberrypi5", out)
        assert said.returncode == 0, said.stderr
    for name in ("etc", "data", "modules"):
        (unit.folder / name).mkdir()
    (unit.folder / "etc" / "artifact_info").write_text("artifact_name=factory\n")
    (unit.folder / "etc" / "mender.conf").write_text("{}\n")
    (unit.folder / "data" / "device_type").write_text("device_type=raspberrypi5\n")
    shutil.copy(MODULE, unit.folder / "modules")
    mounts = "mount --bind modules /usr/share/mender/modules/v3 && mount --bind etc /etc/mender"

    def mender(*words: str) -> Said:
        client = f'mender --no-syslog --data {unit.folder}/data "$@"'
        script = f"cd {unit.folder} && {mounts} && {client}"
        return unit.run("unshare", "--mount", "sh", "-c", script, "sh", *words)

    said = mender("install", "site-2.mender")
    assert said.returncode == 0, said.stderr
    assert unit.store.current == id_of(releases.second)
    said = mender("commit")
    assert said.returncode == 0 and unit.runs(releases.second), said.stderr
    assert "site-2" in mender("show-artifact").stdout
    unit.has_little_patience()
    assert mender("install", "site-3.mender").returncode == 0
    said = mender("commit")
    assert said.returncode == 1 and "Rolling back" in said.stdout, said.stdout
    assert unit.runs(releases.second) and "site-2" in mender("show-artifact").stdout


@needs("shellcheck")
def test_the_scripts_have_no_faults_that_shellcheck_knows() -> None:
    scripts = [MODULE, HOOK, MENDER / "make-artifact.sh", RAUC / "make-bundle.sh", MENDER / "update.conf"]
    words = ["shellcheck", "--shell=sh", "--exclude=SC1090,SC2034", *map(str, scripts)]  # a file of the unit; its variables
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def hook(unit: Unit, bundle: Path, *arguments: str) -> Said:
    """One call, as RAUC makes it."""
    slot = {"RAUC_SLOT_NAME": "edge-vad.0", "RAUC_SLOT_CLASS": "edge-vad", "RAUC_SLOT_DEVICE": str(unit.store.folder)}
    return unit.run(HOOK, *(arguments or ("slot-install",)), RAUC_IMAGE_NAME=str(bundle), **slot)


def test_the_hook_of_rauc_installs_returns_and_refuses(unit: Unit, releases: Releases) -> None:
    assert hook(unit, releases.second, "install-check").returncode == 0
    refused = hook(unit, releases.unsigned)
    assert refused.returncode != 0 and "not signed" in refused.stderr
    assert unit.store.current == id_of(releases.first) and not (unit.folder / "systemd").exists()
    said = hook(unit, releases.second)
    assert said.returncode == 0 and unit.runs(releases.second), said.stderr
    assert hook(unit, releases.second).returncode == 0, "the same once more"
    unit.has_little_patience()
    said = hook(unit, releases.smaller)
    assert said.returncode == 1 and "was not confirmed by the unit" in said.stderr
    assert unit.runs(releases.second)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of a test, with its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=test"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    return cert, key


@needs("rauc", "openssl", "mksquashfs")
@pytest.mark.parametrize("form", ["plain", "verity"])
def test_a_rauc_bundle_is_made_of_a_signed_bundle_only(
    unit: Unit, releases: Releases, certificate: tuple[Path, Path], form: str
) -> None:
    out, make = unit.folder / "site-2.raucb", RAUC / "make-bundle.sh"
    refused = unit.run("sh", make, releases.unsigned, releases.owner, *certificate, "edge-vad-pi5", out)
    assert refused.returncode == 1 and "not signed" in refused.stderr and not out.exists()
    made = unit.run("sh", make, releases.second, releases.owner, *certificate, "edge-vad-pi5", out, FORMAT=form)
    assert made.returncode == 0, made.stderr
    told = unit.run("rauc", "--keyring", certificate[0], "info", out).stdout
    for word in ("'edge-vad-pi5'", "'site-2'", form, "edge-vad", "site.evb", "install"):
        assert word in told, told


@needs("rauc", "openssl", "mksquashfs", "dbus-daemon", "losetup")
@needs_root
def test_rauc_itself_updates_and_returns(unit: Unit, releases: Releases, certificate: tuple[Path, Path]) -> None:
    """A real service on a message bus of its own, with the slots of system.conf."""
    for name, bundle in (("site-2", releases.second), ("site-3", releases.smaller)):
        words = ("sh", RAUC / "make-bundle.sh", bundle, releases.owner, *certificate, "edge-vad-pi5")
        said = unit.run(*words, unit.folder / f"{name}.raucb", FORMAT="plain")  # verity needs the kernel's device mapper
        assert said.returncode == 0, said.stderr
    shown = (RAUC / "system.conf").read_text()
    replaced = {
        "/var/lib/rauc": unit.folder / "rauc",
        "/run/rauc": unit.folder / "mounts",
        "/etc/rauc/keyring.pem": certificate[0],
        "/dev/disk/by-partlabel/root-a": unit.folder / "root-a",
        "/var/lib/edge-vad": unit.folder / "store",
    }
    for path, here in replaced.items():
        assert path in shown
        shown = shown.replace(path, str(here))
    (unit.folder / "system.conf").write_text(shown.replace("[keyring]", "bundle-formats=plain\n\n[keyring]"))
    (unit.folder / "root-a").touch()
    for name in ("rauc", "mounts"):
        (unit.folder / name).mkdir()
    bus = unit.folder / "bus"
    (unit.folder / "bus.conf").write_text(
        f"<busconfig><type>system</type><listen>unix:path={bus}</listen><policy context='default'>"
        "<allow own='*'/><allow send_destination='*'/><allow receive_sender='*'/><allow user='*'/></policy></busconfig>"
    )
    more = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
    rauc = ("rauc", f"--conf={unit.folder / 'system.conf'}")
    started: list[subprocess.Popen[bytes]] = []

    def serve(*words: str) -> None:
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(words, env={**unit.environment, **more}, stdout=quiet, stderr=quiet))

    try:
        serve("dbus-daemon", f"--config-file={unit.folder / 'bus.conf'}")
        wait_for(bus.exists)
        serve(*rauc, "--override-boot-slot=A", "service")
        wait_for(lambda: unit.run(*rauc, "status", **more).returncode == 0)
        said = unit.run(*rauc, "install", unit.folder / "site-2.raucb", **more)
        assert said.returncode == 0 and unit.runs(releases.second), said
        unit.has_little_patience()
        said = unit.run(*rauc, "install", unit.folder / "site-3.raucb", **more)
        assert said.returncode == 1 and "failed to run slot hook" in said.stdout, said
        assert unit.runs(releases.second)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(10)


def wait_for(sign: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not sign():
        assert time.monotonic() < deadline, "it does not come up"
        time.sleep(0.1)
