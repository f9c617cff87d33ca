"""edge-vad service: what is written for systemd, and what is asked of it; systemd's own tools judge the text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tiny import Outcome

import edge_vad
from edge_vad import service
from edge_vad.errors import OutputError, ProfileError
from edge_vad.health import User
from edge_vad.service import Service, quoted, service_of

Cli = Callable[..., Outcome]
Write = Callable[..., Path]
STORE = {"source": "/dev/video0", "store": "/var/lib/edge-vad"}
HAS_SYSTEMD = shutil.which("systemd-analyze") is not None
WORST_EXPOSURE = 2.0  # of 10


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody reaches; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a configuration; the Python of these tests counts as one that everybody may run."""
    may_read = User.may_read

    def reads(user: User, path: Path) -> bool:
        ours = (Path(sys.executable), Path(edge_vad.__file__))
        return path in ours or may_read(user, path)

    monkeypatch.setattr(User, "may_read", reads)

    def make(*, cameras: object = None, mode: int = 0o644, **more: object) -> Path:
        config = folder / "device.yaml"
        plain = {"name": "gate", "cameras": cameras or {"street": STORE}, "data": "/var/lib/edge-vad/gate", **more}
        config.write_text(yaml.safe_dump(plain))
        config.chmod(mode)
        return config

    return make


def settings(made: Service) -> dict[str, list[str]]:
    """Key -> values of a service file."""
    found: dict[str, list[str]] = {}
    for line in made.text.splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_a_service(write: Write) -> None:
    config = write()
    made = service_of(config)
    found = settings(made)
    assert made.name == "edge-vad-gate.service"
    assert found["ExecStart"] == [f"{sys.executable} -m edge_vad run --config {config}"]
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "WatchdogSec": "60",
        "Restart": "always",
        "RestartSec": "5",
        "StartLimitIntervalSec": "0",
        "TimeoutStopSec": "10",
        "KillMode": "mixed",
        "DynamicUser": "yes",
        "User": "edge-vad",
        "StateDirectory": "edge-vad",
        "CacheDirectory": "edge-vad",
        "RuntimeDirectory": "edge-vad/gate",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "DevicePolicy": "closed",
        "Environment": "ORT_DISABLE_TELEMETRY=1",
        "IPAddressDeny": "any",
        "WantedBy": "multi-user.target",
    }
    assert {key: found[key] for key in expected} == {key: [value] for key, value in expected.items()}
    assert "char-video4linux rw" in found["DeviceAllow"]
    assert "ReadWritePaths" not in found and "LoadCredential" not in found


def test_the_first_unit_has_the_short_name(write: Write) -> None:
    assert service_of(write(name="edge-vad")).name == "edge-vad.service"


@pytest.mark.parametrize(
    ("more", "local"),
    [
        ({}, True),
        ({"cameras": {"a": {**STORE, "source": "picamera2:0"}, "b": STORE}}, True),
        ({"cameras": {"a": {**STORE, "source": "rtsp://10.0.0.5/x"}, "b": STORE}}, False),
        ({"cameras": {"a": {**STORE, "source": "my.camera:0"}}}, False),
        ({"sinks": ["jsonl:-", "mqtt:broker/edge-vad"]}, False),
        ({"page": {"enabled": True}}, True),
        ({"page": {"enabled": True, "host": "0.0.0.0", "token": "0123456789abcdef"}}, False),
    ],
)
def test_a_unit_that_needs_no_network_gets_none(more: dict[str, object], local: bool, write: Write) -> None:
    assert ("IPAddressDeny" in settings(service_of(write(**more)))) is local


def test_a_jetson_keeps_its_devices_and_the_socket_in_tmp(write: Write) -> None:
    found = settings(service_of(write(cameras={"street": {**STORE, "source": "csi://0"}})))
    assert (found["DevicePolicy"], found["PrivateTmp"]) == (["auto"], ["no"]) and "DeviceAllow" not in found
    for gpu in ("inference.device=cuda:0", "inference.fallback=[openvino@gpu:0]"):
        found = settings(service_of(write(set=[gpu])))
        assert (found["DevicePolicy"], found["PrivateTmp"]) == (["auto"], ["yes"])


def test_a_configuration_with_passwords_is_handed_over(write: Write) -> None:
    config = write(mode=0o600)
    found = settings(service_of(config))
    assert found["LoadCredential"] == [f"device.yaml:{config}"]
    assert found["ExecStart"][0].endswith(" --config ${CREDENTIALS_DIRECTORY}/device.yaml")


def test_a_user_that_exists(write: Write, folder: Path) -> None:
    config = write(data=str(folder), sinks=[f"jsonl:{folder}/events.jsonl"])
    found = settings(service_of(config, "nobody"))
    assert found["User"] == ["nobody"] and "DynamicUser" not in found
    assert found["ReadWritePaths"] == [str(folder)]


def refused(config: Path, *words: str, user: str | None = None) -> None:
    with pytest.raises(ProfileError) as caught:
        service_of(config, user)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_what_could_not_run_as_a_service(write: Write, folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "site.evb").touch()
    bundle = {"source": "/dev/video0", "bundle": "site.evb"}
    refused(write(cameras={"street": bundle}), "cameras.street.bundle: site.evb", "whole path")
    refused(write(data="data"), "data: data", "whole path")
    refused(write(sinks=["jsonl:events.jsonl"]), "sinks: events.jsonl", "whole path")
    refused(write(cameras={"street": {**bundle, "bundle": f"{folder}/none.evb"}}), "none.evb", "is not there")
    refused(write(cameras={"street": {**bundle, "bundle": f"{closed}/site.evb"}}), "site.evb", "may not read", "--user")
    refused(write(data="/srv/edge-vad"), "/srv/edge-vad is not below /var/lib/edge-vad", "--user")
    refused(write(data="/srv/nowhere"), "/srv/nowhere", "install --directory --owner nobody", user="nobody")
    refused(write(), "--user nosuchuser", "useradd", user="nosuchuser")
    refused(folder / "nowhere.yaml", "nowhere.yaml", "cannot be read")


def test_a_python_that_only_its_owner_reaches(write: Write, folder: Path) -> None:
    (folder / "home").mkdir(mode=0o700)
    (folder / "home/python").touch()
    (folder / "python").symlink_to("home/python")
    with pytest.raises(ProfileError, match="home/python.*may not read"):
        service_of(write(), python=str(folder / "python"))


def test_paths_are_quoted() -> None:
    assert quoted(Path('/opt/edge vad/50% "of" $HOME')) == '"/opt/edge vad/50%% \\"of\\" $$HOME"'
    assert quoted(Path("/opt/edge-vad")) == "/opt/edge-vad"
    with pytest.raises(ProfileError):
        quoted(Path("/opt/a\nExecStartPre=/bin/sh"))


# What systemd says


@pytest.mark.skipif(not HAS_SYSTEMD, reason="systemd-analyze is not installed: apt-get install systemd")
@pytest.mark.parametrize("more", [{}, {"cameras": {"street": {**STORE, "source": "csi://0"}}}, {"mode": 0o600}])
def test_systemd_takes_every_line(more: dict[str, object], write: Write, folder: Path) -> None:
    made = service_of(write(**more))
    path = folder / made.name
    path.write_text(made.text)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if made.name in line]
    assert done.returncode == 0 and not ours, ours


@pytest.mark.skipif(not HAS_SYSTEMD, reason="systemd-analyze is not installed: apt-get install systemd")
def test_systemd_finds_it_little_exposed(write: Write, folder: Path) -> None:
    made = service_of(write(sinks=["mqtt:broker"]))
    path = folder / made.name
    path.write_text(made.text)
    command = ["systemd-analyze", "security", "--offline=true", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze does not judge files: {done.stderr.strip()[:100]}")
    assert float(found[1]) <= WORST_EXPOSURE


# The command


@pytest.fixture
def systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is asked; it fails where a file `fail` names its first word."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "systemctl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\n'
        f'if [ "$(cat {folder}/fail 2>/dev/null)" = "$1" ]; then echo "Job failed." >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")
    (folder / "units").mkdir()
    monkeypatch.setattr(service, "UNITS", folder / "units")
    monkeypatch.setattr(service, "RUNNING", folder)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return folder


def asked(systemd: Path) -> list[str]:
    path = systemd / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_install_and_uninstall(systemd: Path, write: Write, cli: Cli) -> None:
    said = cli("service", "install", "--config", write(cameras={"street": {**STORE, "source": "synthetic:"}}))
    name = "edge-vad-gate.service"
    assert said.code == 0 and name in said.out and said.err == ""
    assert asked(systemd) == ["daemon-reload", f"enable {name}", f"restart {name}"]
    assert (systemd / "units" / name).read_text().startswith(service.MARK)
    said = cli("service", "uninstall")
    assert said.code == 0 and name in said.out
    assert asked(systemd) == [f"disable --now {name}", "daemon-reload"]
    assert list((systemd / "units").iterdir()) == []
    assert cli("service", "uninstall").code == 1


def test_a_dry_run_changes_nothing(systemd: Path, write: Write, cli: Cli) -> None:
    config = write(cameras={"street": {**STORE, "source": "synthetic:seconds=3"}})
    said = cli("service", "install", "--config", config, "--dry-run")
    assert said.code == 0 and said.out == service_of(config).text
    assert "stored footage" in said.err and said.err.count("\n") == 1
    assert asked(systemd) == [] and list((systemd / "units").iterdir()) == []


def test_which_one_to_uninstall(systemd: Path, write: Write, cli: Cli) -> None:
    for name in ("gate", "yard"):
        service.install(service_of(write(name=name)))
    (systemd / "units/edge-vad-foreign.service").write_text("[Service]\n")  # not ours
    asked(systemd)
    said = cli("service", "uninstall")
    assert said.code == 1 and "gate, yard" in said.err
    said = cli("service", "uninstall", "foreign")
    assert said.code == 1 and "installed: gate, yard" in said.err
    assert cli("service", "uninstall", "yard").code == 0
    assert {path.name for path in (systemd / "units").iterdir()} == {"edge-vad-gate.service", "edge-vad-foreign.service"}


def test_a_service_that_does_not_start(systemd: Path, write: Write, cli: Cli) -> None:
    (systemd / "fail").write_text("restart")
    said = cli("service", "install", "--config", write(cameras={"street": {**STORE, "source": "synthetic:"}}))
    assert said.code == 1 and said.err.count("\n") == 1
    assert "Job failed." in said.err and "journalctl --unit edge-vad-gate.service" in said.err


def test_without_systemd_or_without_root(systemd: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    made = service_of(write())
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(OutputError, match="sudo"):
        service.install(made)
    monkeypatch.setattr(service, "RUNNING", systemd / "nowhere")
    for action in (lambda: service.install(made), lambda: service.uninstall()):
        with pytest.raises(OutputError, match="systemd does not run here; --dry-run"):
            action()
    assert asked(systemd) == []


@pytest.mark.parametrize("arguments", [[], ["install"], ["remove"], ["install", "--config"], ["uninstall", "a", "b"]])
def test_wrong_usage(arguments: list[str], cli: Cli) -> None:
    said = cli("service", *arguments)
    assert said.code == 2 and said.out == ""
