"""device.yaml is read strictly: every mistake is one line that names the file and the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Outcome

from edge_vad.device import Device, load_device
from edge_vad.errors import ProfileError

Cli = Callable[..., Outcome]
CAMERA = "cameras: {gate: {source: 'synthetic:', bundle: site.evb}}\n"

MISTAKES: dict[str, tuple[str, str]] = {
    "an unknown key": (CAMERA + "sink: ['jsonl:-']\n", "unknown key 'sink' (did you mean 'sinks'?)"),
    "an unknown key of a camera": (
        "cameras: {gate: {source: a, bundle: b, frames: 3}}",
        "cameras.gate: unknown key 'frames'",
    ),
    "an unknown key of the media": (CAMERA + "media: {snapshot: true}", "media: unknown key 'snapshot' (did you mean"),
    "an unknown key of the page": (CAMERA + "page: {enable: true}", "page: unknown key 'enable' (did you mean 'enabled'?)"),
    "no cameras": ("name: gate\n", "the key 'cameras' is missing"),
    "an empty list of cameras": ("cameras: {}\n", "there is no camera"),
    "cameras as a list": ("cameras: [{source: a, bundle: b}]\n", "cameras: expected keys and values"),
    "no source": ("cameras: {gate: {bundle: b}}\n", "cameras.gate: the key 'source' is missing"),
    "neither bundle nor store": ("cameras: {gate: {source: a}}\n", "cameras.gate: give either a bundle or a store"),
    "bundle and store": (
        "cameras: {gate: {source: a, bundle: b, store: c}}",
        "cameras.gate: give either a bundle or a store",
    ),
    "a name with a space": ("cameras: {'the gate': {source: a, bundle: b}}", "'the gate' is not a name"),
    "a name with a slash": ("cameras: {'../gate': {source: a, bundle: b}}", "'../gate' is not a name"),
    "a name in capitals": ("cameras: {Gate: {source: a, bundle: b}}", "'Gate' is not a name"),
    "a name that is too long": ("cameras: {" + "g" * 33 + ": {source: a, bundle: b}}", "is not a name"),
    "an empty name": ("cameras: {'': {source: a, bundle: b}}", "'' is not a name"),
    "a unit's name with a dot": (CAMERA + "name: a.b\n", "'a.b' is not a name"),
    "a number as a source": ("cameras: {gate: {source: 0, bundle: b}}", "cameras.gate: source: expected str, found 0"),
    "a text as frames per second": (
        "cameras: {gate: {source: a, bundle: b, fps: fast}}",
        "cameras.gate: fps: expected float",
    ),
    "sinks as a text": (CAMERA + "sinks: 'jsonl:-'\n", "sinks: expected a list, found 'jsonl:-'"),
    "a sink as a number": (CAMERA + "sinks: [3]\n", "sinks: expected str, found 3"),
    "a log without room": (CAMERA + "log_quota_mb: 0\n", "log_quota_mb must be at least 1"),
    "half a megabyte": (CAMERA + "log_quota_mb: 0.5\n", "log_quota_mb: expected int, found 0.5"),
    "a truth as a number": (CAMERA + "media: {quota_mb: true}\n", "media: quota_mb: expected int, found True"),
    "media without room": (CAMERA + "media: {quota_mb: 0}\n", "media: quota_mb must be at least 1"),
    "a past in the future": (CAMERA + "media: {pre_s: -1}\n", "media: pre_s and post_s must not be negative"),
    "clips without frames": (CAMERA + "media: {fps: 0}\n", "media: pre_s and post_s must not be negative, fps and max_s"),
    "a page for all without a token": (
        CAMERA + "page: {enabled: true, host: 0.0.0.0}\n",
        "page: beyond the loopback the status page needs a token of at least 16 characters",
    ),
    "a page for all with a short token": (
        CAMERA + "page: {enabled: true, host: '::', token: '123456789012345'}\n",
        "page: beyond the loopback the status page needs a token",
    ),
    "a port that is none": (CAMERA + "page: {port: 65536}\n", "page: port must lie in 0..65535"),
    "no YAML": ("cameras: {gate\n", "not valid YAML"),
    "a list": ("- gate\n", "expected keys and values"),
    "nothing": ("", "expected keys and values"),
    "a tag that builds objects": (CAMERA + "name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_the_file_and_the_key(tmp_path: Path, cli: Cli, mistake: str) -> None:
    text, said = MISTAKES[mistake]
    path = tmp_path / "device.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as error:
        load_device(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)
    outcome = cli("run", "--config", path)
    assert (outcome.code, outcome.out) == (1, "")
    [line] = outcome.err.splitlines()
    assert line == f"edge-vad run: {error.value}"


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "device.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.yaml", "device.yaml", "."):
        said = cli("run", "--config", tmp_path / name)
        assert said.code == 1 and len(said.err.splitlines()) == 1
        assert "the configuration cannot be read" in said.err


def test_all_keys_have_defaults_but_the_cameras(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(CAMERA, encoding="utf-8")
    device = load_device(path)
    assert device == Device(device.cameras)
    assert (device.name, device.data, device.sinks) == ("edge-vad", None, ("jsonl:-",))
    assert not device.page.enabled and device.page.host == "127.0.0.1"


@pytest.mark.parametrize(
    "page",
    ["{enabled: true}", "{enabled: true, host: '::1'}", "{enabled: true, host: 0.0.0.0, token: '0123456789abcdef'}"],
)
def test_a_page_on_the_loopback_or_with_a_token_is_allowed(tmp_path: Path, page: str) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(f"{CAMERA}page: {page}\n", encoding="utf-8")
    assert load_device(path).page.enabled


@pytest.mark.parametrize(
    "flag",
    [
        ("--bundle", "b.evb"),
        ("--store",),
        ("--source", "0"),
        ("--sink", "jsonl:-"),
        ("--fps", "5"),
        ("--data", "data"),
        ("--profile", "raspberry_pi_4"),
    ],
    ids=lambda flag: flag[0],
)
def test_a_configuration_beside_the_flags_of_one_camera_is_a_usage_error(tmp_path: Path, cli: Cli, flag: tuple[str]) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(CAMERA, encoding="utf-8")
    said = cli("run", "--config", path, *flag)
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert "--config describes the whole unit: leave the other flags out" in said.err


def test_single_values_of_the_profile_may_be_changed_beside_a_configuration(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(CAMERA, encoding="utf-8")
    said = cli("run", "--config", path, "--set", "inference.thread=2")
    assert said.code == 1 and "unknown key 'thread' (did you mean 'threads'?)" in said.err


@pytest.mark.parametrize(
    "flags", [(), ("--source", "0"), ("--bundle", "b"), ("--source", "0", "--bundle", "b", "--store")], ids=len
)
def test_too_few_or_too_many_flags_are_a_usage_error(cli: Cli, flags: tuple[str, ...]) -> None:
    said = cli("run", *flags)
    assert said.code == 2 and "name --source and either --bundle or --store, or a --config" in said.err
