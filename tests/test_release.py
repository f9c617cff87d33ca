"""What is released: the wheel and the sdist of `make build`, and the wheel alone with its dependencies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from edge_vad import __version__
from edge_vad.cli import COMMANDS
from edge_vad.profile import names

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_AS = {"edge_vad": "edge_vad", "converters": "edge_vad/converters", "profiles": "edge_vad/profiles"}
GENERATED = {"PKG-INFO", "setup.cfg"}  # by setuptools, in every sdist
NOT_IN_AN_SDIST = (".ci/", ".gitignore")
DATE = 1_700_000_000
# The first imports every verb; they must get by with the three dependencies, and say themselves what else they need.
EVERY_VERB = """
import contextlib, io
from edge_vad.cli import COMMANDS, main
for verb in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([verb, "--help"])
    print(*said.getvalue().split()[:3])
"""


@dataclass(frozen=True, slots=True)
class Built:
    """A folder with a copy of the tree, and what `make build` left in dist/ there."""

    tree: Path
    sdist: Path
    wheel: Path


def tracked() -> list[str]:
    """Files of the repository, with those that are about to be added to it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to it is not known")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file())


def copied(files: list[str], source: Path, tree: Path, mode: int) -> Path:
    """A copy as another checkout would have it: with files of now, and of that mode."""
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, tree / name)
        (tree / name).chmod(mode)
    return tree


def build(tree: Path) -> Built:
    """`make build` there, with this environment in the place of the one that make install makes."""
    command = ["make", "build", "--old-file=.venv/installed", f"BIN={Path(sys.executable).parent}"]
    settings = {**os.environ, "SOURCE_DATE_EPOCH": str(DATE)}
    ended = subprocess.run(command, cwd=tree, env=settings, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (sdist,), (wheel,) = (tree / "dist").glob("*.tar.gz"), (tree / "dist").glob("*.whl")
    return Built(tree, sdist, wheel)


@pytest.fixture(scope="module")
def files() -> list[str]:
    return tracked()


@pytest.fixture(scope="module")
def built(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built where an earlier build left a module that is gone, and a list for the sdist with a file that is none of it."""
    tree = copied(files, ROOT, tmp_path_factory.mktemp("release") / "tree", 0o644)
    for name, text in (
        ("build/lib/edge_vad/gone.py", ""),
        ("notes.txt", "private"),
        ("edge_vad.egg-info/SOURCES.txt", "notes.txt\n"),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return build(tree)


@pytest.fixture(scope="module")
def again(files: list[str], built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same tree, checked out later by someone whose files are writable by their group."""
    return build(copied(files, built.tree, tmp_path_factory.mktemp("release") / "elsewhere", 0o664))


def packaged(files: list[str]) -> set[str]:
    """Where the files of the three packages lie in the wheel."""
    parts = [(name.partition("/")[0], name.partition("/")[2]) for name in files]
    return {f"{IMPORTED_AS[top]}/{rest}" for top, rest in parts if top in IMPORTED_AS}


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_three_packages_and_nothing_else(built: Built, files: list[str]) -> None:
    """Every file of theirs: modules, py.typed, the profiles' YAML, the page; no tests, and nothing of an earlier build."""
    held = contents(built.wheel)
    assert {name for name in held if ".dist-info/" not in name} == packaged(files)
    assert {"edge_vad/py.typed", "edge_vad/page/static/index.html", "edge_vad/profiles/raspberry_pi_5.yaml"} <= held


def test_the_sdist_holds_the_whole_repository(built: Built, files: list[str]) -> None:
    """make demo, make test, make lint and make build work from it; see MANIFEST.in."""
    with tarfile.open(built.sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    own = {name for name in held if name not in GENERATED and ".egg-info/" not in name}
    assert own == {name for name in files if not name.startswith(NOT_IN_AN_SDIST)}


def test_the_same_tree_and_date_give_the_same_bytes(built: Built, again: Built) -> None:
    assert built.wheel.read_bytes() == again.wheel.read_bytes()
    assert built.sdist.read_bytes() == again.sdist.read_bytes()
    with tarfile.open(built.sdist) as archive:
        assert {member.mtime for member in archive.getmembers()} == {DATE}


def test_the_wheel_of_the_tree_is_that_of_the_sdist(built: Built) -> None:
    """`make build` makes the wheel from the sdist; pip makes it from the tree."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "direct"]
    shutil.rmtree(built.tree / "build", ignore_errors=True)
    everywhere = {**os.environ, "EDGE_VAD_KERNELS": "off"}
    subprocess.run(command, cwd=built.tree, env=everywhere, capture_output=True, check=True, timeout=300)
    assert contents(built.tree / "direct" / built.wheel.name) == contents(built.wheel)


def test_an_installation_from_the_sdist_is_compiled(built: Built, tmp_path: Path) -> None:
    """One file for every Python 3; without a compiler the same without it, and no error."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    for compiler, added in (("cc", {"edge_vad/_kernels.abi3.so"}), ("/nowhere/cc", set())):
        folder = tmp_path / Path(compiler).parent.name
        if not shutil.which("cc") and added:
            continue
        settings = {**os.environ, "CC": compiler}
        subprocess.run([*pip, str(folder), str(built.sdist)], env=settings, capture_output=True, check=True, timeout=300)
        (wheel,) = folder.glob("*.whl")
        mine, pure = ({name for name in contents(w) if ".dist-info/" not in name} for w in (wheel, built.wheel))
        assert mine - pure == added and not pure - mine
        assert "-cp310-abi3-linux" in wheel.name


def test_the_metadata_is_valid_and_says_what_holds(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name)
        licences = {entry.rpartition("/")[2] for entry in archive.namelist() if "/licenses/" in entry}
    metadata = Metadata.from_email(text)  # raises for what an index would refuse
    raw = BytesParser().parsebytes(text, headersonly=True)
    assert (metadata.name, str(metadata.version)) == ("edge-vad", __version__)
    assert licences == {"LICENSE", "THIRD_PARTY_LICENSES.md"}
    assert "Apache-2.0" in (raw["License"], raw["License-Expression"])
    assert str(metadata.requires_python) == ">=3.10" and "Typing :: Typed" in (metadata.classifiers or [])
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def clean(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and the three packages that every installation has, as pinned."""
    folder = tmp_path_factory.mktemp("clean")
    pins = re.findall(r"^(?:numpy|pyyaml|safetensors)==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pins) == 3
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    fetched = [
        *pip,
        "download",
        "--retries=1",
        "--timeout=10",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        "wheels",
        *pins,
    ]
    said = subprocess.run(fetched, cwd=folder, capture_output=True, text=True, timeout=300)
    if said.returncode:
        pytest.skip(f"no package index answers: {said.stderr.strip().splitlines()[-1]}")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "environment"], cwd=folder, check=True, timeout=120)
    into = [*pip, "--python", "environment", "install", "--no-index", "--find-links", "wheels", "--no-compile"]
    installed = subprocess.run([*into, str(built.wheel)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert installed.returncode == 0, installed.stderr
    return folder / "environment" / "bin"


def said_by(*command: str | Path) -> str:
    """Standard output, from a folder where no edge_vad lies."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(list(map(str, command)), cwd="/", env=alone, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_installed_command_knows_its_version_and_the_profiles(clean: Path) -> None:
    assert said_by(clean / "edge-vad", "--version") == f"edge-vad {__version__}\n"
    assert [line.split()[0] for line in said_by(clean / "edge-vad", "profiles").splitlines()] == names()
    assert said_by(clean / "edge-vad", "profiles", "raspberry_pi_5") == (ROOT / "profiles/raspberry_pi_5.yaml").read_text()


def test_every_verb_gives_its_help_without_any_extra(clean: Path) -> None:
    assert said_by(clean / "python", "-c", EVERY_VERB).splitlines() == [f"usage: edge-vad {verb}" for verb in COMMANDS]


def test_what_is_installed_comes_from_the_wheel_and_is_typed(clean: Path) -> None:
    code = "import edge_vad, pathlib; print((pathlib.Path(edge_vad.__file__).parent / 'py.typed').resolve(strict=True))"
    assert said_by(clean / "python", "-c", code).startswith(str(clean.parent))
    assert "Detector" in said_by(clean / "python", "-c", "import edge_vad; print(edge_vad.Detector.open.__qualname__)")
