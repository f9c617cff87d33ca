"""edge-vad provision: what it refuses, what is in an overlay, and that the same inputs give the same bytes."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import small_bundle
import yaml
from edge_vad.converters import hnswlib_wheel, kernels_wheel, wheels
from edge_vad.converters.cross_build import write_wheel
from edge_vad.converters.lock import GROUPS
from edge_vad.converters.targets import TARGETS, USUAL
from tiny import Outcome

from edge_vad import kernels
from edge_vad.errors import ProvisionError
from edge_vad.manifest import sha256
from edge_vad.profile import names

Cli = Callable[..., Outcome]
STORE = "/var/lib/edge-vad/gate"


def wheel(folder: Path, name: str, text: str = "") -> Path:
    """A wheel with one file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{name}.py"), text or name)
    return path


def configure(folder: Path, **more: object) -> Path:
    plain = {"name": "gate", "profile": "raspberry_pi_5", "cameras": {"gate": {"source": "/dev/video0", "store": STORE}}}
    (folder / "device.yaml").write_text(yaml.safe_dump({**plain, **more}))
    return folder / "device.yaml"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle and a configuration, in which everything that comes from a network is there already."""
    here = tmp_path / "desk"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package, library = (wheel(tmp_path / "wheels", name) for name in ("edge_vad", "numpy"))
    monkeypatch.setattr(wheels, "own_wheel", lambda cache: package)
    monkeypatch.setattr(wheels, "with_kernels", lambda pure, target, cache: pure)
    monkeypatch.setattr(wheels, "_cached", lambda target, lines, cache: [library])
    monkeypatch.setattr(wheels, "build_hnswlib", lambda target, line, cache: wheel(tmp_path / "made", "hnswlib"))
    small_bundle.write(here / "site.evb")
    configure(here)
    return here


def overlay(cli: Cli, *more: object, out: str = "overlay.tar") -> dict[str, bytes]:
    """The files of an overlay, by their names below its top folder."""
    said = cli("provision", "--bundle", "site.evb", "--config", "device.yaml", "--out", out, *more)
    assert said.code == 0, said.err
    with tarfile.open(out) as archive:
        return {m.name.partition("/")[2]: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]


def refused(cli: Cli, *more: object, bundle: str = "site.evb") -> str:
    """The one line that is said, after which no overlay lies there."""
    said = cli("provision", "--bundle", bundle, "--config", "device.yaml", "--out", "overlay.tar", *more)
    assert said.code == 1 and said.err.count("\n") == 1
    assert not list(Path().glob("*overlay.tar*"))
    return said.err


def test_an_overlay_holds_everything_with_its_hash(site: Path, cli: Cli) -> None:
    files = overlay(cli, "--profile", "raspberry_pi_5")
    sums = dict(reversed(line.split("  ")) for line in files.pop("SHA256SUMS").decode().splitlines())  # type: ignore[misc]
    assert sums == {name: sha256(data) for name, data in files.items()}
    assert {"install.sh", "install.py", "device.yaml", "bundles/site.evb", "systemd/edge-vad-install.service"} <= set(files)
    described = json.loads(files["overlay.json"])
    assert described["target"]["name"] == "raspberry_pi_os_trixie" and described["cameras"]["gate"]["store"] == STORE
    pinned = re.findall(r"^(\S+)==1\.0 --hash=sha256:(\w{64})$", files["requirements.txt"].decode(), re.MULTILINE)
    assert [name for name, _ in pinned] == ["edge-vad", "hnswlib", "numpy"]
    assert {key for _, key in pinned} == {sha256(data) for name, data in files.items() if name.startswith("wheels/")}


def test_the_same_inputs_give_the_same_bytes(site: Path, cli: Cli) -> None:
    overlay(cli)
    first = Path("overlay.tar").read_bytes()
    for path in site.iterdir():
        path.touch()
    overlay(cli, out="again.tar")
    assert Path("again.tar").read_bytes() == first


def test_a_private_configuration_stays_private(site: Path, cli: Cli) -> None:
    (site / "device.yaml").chmod(0o600)
    overlay(cli)
    with tarfile.open("overlay.tar") as archive:
        assert archive.getmember("edge-vad-overlay/device.yaml").mode == 0o600
        assert archive.getmember("edge-vad-overlay/install.sh").mode == 0o755


def test_keys_travel_and_bundles_are_held_to_them(site: Path, cli: Cli) -> None:
    assert cli("bundle", "keygen", "--out", "owner").code == 0
    assert "not signed" in refused(cli, "--trust", "owner.pub")
    assert cli("bundle", "sign", "site.evb", "--key", "owner.key").code == 0
    files = overlay(cli, "--trust", "owner.pub")
    assert files["trusted.d/owner.pub"] == Path("owner.pub").read_bytes()
    assert not [name for name in files if name.endswith(".key")]


def test_every_camera_has_its_bundle(site: Path, cli: Cli) -> None:
    small_bundle.write(Path("yard.evb"), serial=2)
    cameras = {name: {"source": "/dev/video0", "store": f"/var/lib/edge-vad/{name}"} for name in ("gate", "yard")}
    configure(site, cameras=cameras)
    both = json.loads(overlay(cli)["overlay.json"])["cameras"]
    own = json.loads(overlay(cli, "--bundle", "yard=yard.evb", out="two.tar")["overlay.json"])["cameras"]
    assert both["gate"]["id"] == both["yard"]["id"] == own["gate"]["id"] != own["yard"]["id"]
    Path("overlay.tar").unlink()
    assert "camera yard has no bundle: --bundle yard=FILE.evb" in refused(cli, bundle="gate=site.evb")
    assert "there is site.evb already" in refused(cli, "--bundle", "yard.evb")
    assert "no camera 'yart' (did you mean 'yard'?)" in refused(cli, "--bundle", "yart=yard.evb")


def test_a_profile_of_ones_own_travels(site: Path, cli: Cli) -> None:
    configure(site, profile="/etc/edge-vad/tuned.yaml")
    assert "--profile FILE.yaml" in refused(cli)
    assert cli("profiles", "show", "raspberry_pi_5").code == 0
    Path("tuned.yaml").write_text(
        (Path(small_bundle.__file__).parents[1] / "profiles/raspberry_pi_5.yaml")
        .read_text()
        .replace("threads: 3", "threads: 2")
    )
    files = overlay(cli, "--profile", "tuned.yaml")
    assert files["profile.yaml"] == Path("tuned.yaml").read_bytes()
    assert json.loads(files["overlay.json"])["profile"] == "/etc/edge-vad/tuned.yaml"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--profile", "raspberry_pi_4"), "write it into the configuration"),
        (("--target", "raspberry_pi_os_trixi"), "did you mean 'raspberry_pi_os_trixie'"),
        (("--wheel", "absent-1.0-py3-none-any.whl"), "there is no such wheel"),
        (("--wheel", "device.yaml"), "is not a wheel"),
        (("--trust", "absent.pub"), "absent.pub"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(site: Path, cli: Cli, more: tuple[str, ...], said: str) -> None:
    assert said in refused(cli, *more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"data": "data"}, "write the whole path"),
        ({"data": "/srv/data"}, "is not below /var/lib/edge-vad"),
        ({"profile": "jetson_nano"}, "no target is usual for the profile jetson_nano"),
        ({"set": ["inference.backend=torch"]}, "the backend torch is not part of overlays"),
        ({"cameras": {}}, "there is no camera"),
    ],
)
def test_a_configuration_that_no_service_could_use_is_refused(
    site: Path, cli: Cli, more: dict[str, object], said: str
) -> None:
    configure(site, **more)
    assert said in refused(cli)


def test_a_damaged_bundle_does_not_travel(site: Path, cli: Cli) -> None:
    data = Path("site.evb").read_bytes()
    Path("site.evb").write_bytes(data[:-40])
    assert "site.evb" in refused(cli)


def test_a_full_disk_leaves_the_overlay_before_as_it_was(site: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay(cli)
    before = Path("overlay.tar").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    said = cli("provision", "--bundle", "site.evb", "--config", "device.yaml", "--out", "overlay.tar")
    assert said.code == 1 and "No space left" in said.err
    assert Path("overlay.tar").read_bytes() == before and not list(Path().glob(".overlay*"))


def test_a_wheel_of_ones_own_takes_the_place_of_its_package(site: Path, cli: Cli) -> None:
    mine = wheel(site, "hnswlib", "mine")
    files = overlay(cli, "--wheel", mine, "--wheel", wheel(site, "my_camera"))
    assert (
        files["wheels/hnswlib-1.0-py3-none-any.whl"] == mine.read_bytes()
        and "wheels/my_camera-1.0-py3-none-any.whl" in files
    )
    assert not [name for name in overlay(cli, "--without", "hnswlib", out="less.tar") if "hnswlib" in name]


def test_openvino_travels_where_it_is_asked_for(site: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(wheels, "_cached", lambda target, lines, cache: asked.append(lines) or [])
    configure(site, profile="intel_openvino")
    overlay(cli)
    configure(site, profile="desktop_cpu")
    overlay(cli, out="other.tar")
    assert [any(line.startswith("openvino==") for line in lines) for lines in asked] == [True, False]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_locks_hold_every_package_by_one_hash(target: wheels.Target) -> None:
    lines = wheels.locked(target, GROUPS)
    named = {line.split("==")[0] for line in lines}
    assert all(re.fullmatch(r"[\w-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert {re.split("[<>=]", package)[0] for packages in GROUPS.values() for package in packages} <= named
    if target.name == "raspberry_pi_os_bookworm":
        assert any(line.startswith("numpy==1.") for line in lines), "picamera2 of bookworm is compiled for NumPy 1"


def test_usual_targets_are_of_profiles_that_there_are() -> None:
    assert set(USUAL) == set(names()) - {"jetson_nano"}


def test_a_cached_wheel_that_was_damaged_is_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = wheel(tmp_path / "index", "numpy")
    line = f"numpy==1.0 --hash=sha256:{sha256(good.read_bytes())}"
    fetched = []

    def fetch(target: object, lines: list[str], folder: Path) -> None:
        fetched.append(lines)
        shutil.copy(good, folder)

    monkeypatch.setattr(wheels, "download", fetch)
    (tmp_path / "cache").mkdir()
    for _ in range(2):
        [found] = wheels._cached(TARGETS["debian_trixie"], [line], tmp_path / "cache")
    assert fetched == [[line]] and found.read_bytes() == good.read_bytes()
    found.write_bytes(b"damaged")
    [found] = wheels._cached(TARGETS["debian_trixie"], [line], tmp_path / "cache")
    assert len(fetched) == 2 and found.read_bytes() == good.read_bytes()


def test_what_pip_complains_of_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ProvisionError, match=r"pip download: .*numpy.*--wheel FILE\.whl"):
        wheels.download(TARGETS["debian_trixie"], [f"numpy==9.9 --hash=sha256:{'0' * 64}"], tmp_path)


def test_headers_that_cannot_be_had_say_what_to_do_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = TARGETS["debian_trixie"]
    monkeypatch.setattr(hnswlib_wheel, "TIMEOUT_S", 1.0)
    nowhere = type(gone)(
        gone.name, gone.system, gone.architecture, gone.python, gone.glibc, "http://127.0.0.1:9", gone.suite
    )
    with pytest.raises(ProvisionError, match="--without hnswlib"):
        hnswlib_wheel._headers(nowhere, tmp_path)


def test_a_compiled_wheel_is_one_that_pip_takes(tmp_path: Path) -> None:
    """The format, on a module for this Python: installed by pip, imported, and its record checked."""
    from edge_vad.converters.pip import pip

    tags = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    metadata = b"Metadata-Version: 2.1\nName: made\nVersion: 1.0\n"
    files = {"made.py": b"value = 7\n", "made-1.0.dist-info/METADATA": metadata}
    data = write_wheel("made-1.0", f"{tags}-{tags}-linux_x86_64", files)
    path = tmp_path / "made-1.0-py3-none-any.whl"
    path.write_bytes(data)
    assert data == write_wheel("made-1.0", f"{tags}-{tags}-linux_x86_64", files)
    pip("install", "--no-index", "--no-deps", "--target", str(tmp_path / "site"), str(path))
    assert (tmp_path / "site/made.py").read_text() == "value = 7\n"


@pytest.fixture
def pure(tmp_path: Path) -> Path:
    """A wheel of edge-vad for every machine: the kernels, and what every wheel holds."""
    path = tmp_path / "edge_vad-1.0-py3-none-any.whl"
    path.write_bytes(
        write_wheel(
            "edge_vad-1.0",
            "py3-none-any",
            {
                kernels_wheel.SOURCE: (Path(kernels.__file__).with_suffix(".c")).read_bytes(),
                "edge_vad-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: edge-vad\nVersion: 1.0\n",
            },
        )
    )
    return path


@pytest.mark.parametrize(("name", "machine"), [("jetpack_6", 183), ("debian_bookworm", 62)])
def test_the_inner_loops_are_compiled_for_the_unit(
    pure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, machine: int
) -> None:
    monkeypatch.delenv("EDGE_VAD_KERNELS", raising=False)
    pytest.importorskip("ziglang", reason="pip install ziglang")
    target = TARGETS[name]
    made = kernels_wheel.with_kernels(pure, target, tmp_path)
    assert made.name == f"edge_vad-1.0-py3-none-manylinux_2_{target.glibc[1]}_{target.architecture}.whl"
    with zipfile.ZipFile(made) as archive:
        library = archive.read(f"edge_vad/{kernels.NAME}")
        assert kernels_wheel.SOURCE in archive.namelist() and "edge_vad-1.0.dist-info/METADATA" in archive.namelist()
    assert library[:4] == b"\x7fELF" and int.from_bytes(library[18:20], "little") == machine
    first = made.read_bytes()
    made.unlink()
    assert kernels_wheel.with_kernels(pure, target, tmp_path).read_bytes() == first, "the same bytes again"
    if machine == 62:
        (tmp_path / kernels.NAME).write_bytes(library)
        assert kernels._load(tmp_path / kernels.NAME) is not None


def test_without_a_compiler_the_unit_gets_the_wheel_for_every_machine(
    pure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernels_wheel, "find_spec", lambda name: None)
    assert kernels_wheel.with_kernels(pure, TARGETS["jetpack_6"], tmp_path) == pure
    assert "pip install ziglang" in caplog.text


def test_kernels_that_cannot_be_compiled_say_what_to_do(pure: Path) -> None:
    pytest.importorskip("ziglang", reason="pip install ziglang")
    with pytest.raises(ProvisionError, match=r"kernels\.c .*JetPack 6.*--wheel FILE\.whl"):
        kernels_wheel.compiled(b"/* cc -O3 */ no C at all", TARGETS["jetpack_6"])
    with pytest.raises(ProvisionError, match="install edge-vad again"):
        kernels_wheel.compiled(b"int a;", TARGETS["jetpack_6"])
