"""The commands of the documents are run: of the pages to begin with all of them, of the others what is cheap to run.

The folder that they are run in has what the pages take for granted: footage, clips with labels, a bundle, plug-ins. In the
place of the default encoder are two small convolutions, so that a build takes a second, and the demo is shorter.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from test_docs import BLOCK, ROOT, blocks, command_lines
from tiny import Outcome

from edge_vad.bundle import read_bundle

Cli = Callable[..., Outcome]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [*(ROOT / "docs" / f"{name}.md" for name in ("index", "quick-start", "how-it-works", "limits")), *GUIDES]
EXAMPLES = {document for document, _, _ in command_lines() if "/" in document}  # with tests of their own
OTHERS = sorted({document for document, _, _ in command_lines()} - {page.name for page in PAGES} - EXAMPLES)
ID = "1f8f9a21bfea"  # the pages' word for the id of site.evb
PATIENCE_S = 60.0  # until a unit that was started says that it is at work
INSTEAD = {"/dev/video0": "synthetic:seconds=2,size=180x120"}  # what a desktop has not, and what stands for it here
EXIT_CODES = {"edge-vad store rollback --store store --set trust.keys=keys": 1}  # exit codes that a page does not say
NOT_RUN = {
    "UCSDped2|ped2.evb": "a data set of somebody else: tests/test_ped2.py, where it is there",
    "edge-vad train|--weights run/": "trains a network: tests/test_network_commands.py",
    "--detector": "weights of somebody else: tests/converters/test_objects.py",
    "dask://": "needs a cluster: tests/converters/test_dask_engine.py",
    "nncf": "takes half a minute to import: tests/converters/test_quantisation.py",
    "my_encoder|encoder.yaml|foreign.onnx|lite0": "exports with torch: tests/converters/test_encoders.py",
    "bundle import": "needs a foreign memory: tests/converters/test_imports.py",
    "--matrix|edge-vad tune|tuned.yaml|--compare": "minutes; short ones are on the page of latency reports",
    "--duration (5m|60s)|bench .*--profile": "half a minute and more, against the budget of another machine",
    "picamera2:|rtsp:|csi:|gst:": "needs that camera: tests/cameras",
    "cuda": "needs a GPU",
    "/var/lib/|/etc/|/mnt/": "folders of the system: tests/commands",
    r"store (install|activate|list)(?!.*--store)|--store --source|only_the_new_key": "the system's store: tests/commands",
    "--config device.yaml|edge-vad status|edge-vad provision": "a unit at work, or the network: tests/commands",
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, footage: Path, tiny_bundle: Path) -> Path:
    """What lies in the folder of a user who follows the pages."""
    from edge_vad.cameras.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("material")
    shutil.copytree(footage, folder / "footage")
    (folder / "clips").mkdir()
    for name, n_frames in (("clip.mp4", 40), ("clips/01.mp4", 40), ("another_day.mp4", 620)):
        tiny.write_video(folder / name, n_frames)
    tiny.write_clip(folder / "clip", 40)
    np.save(folder / "clip.npy", np.stack([frame.image for frame in tiny.clip_frames(20)]))
    write_dataset(folder / "street", n_training=1, n_testing=1, seconds=4.0, size=tiny.SIZE)
    (folder / "labels.json").write_text(json.dumps({"01": {"frames": 40, "anomalous_1based": [[11, 30]]}}))
    for name in ("site.evb", "new.evb", "unsigned.evb"):
        shutil.copy(tiny_bundle, folder / name)
    (folder / "build.yaml").write_text(blocks(ROOT / "docs/build.md", "yaml")[0])
    (folder / "my_device.yaml").write_text(blocks(ROOT / "docs/plugins.md", "yaml")[0])
    shutil.copy(ROOT / "profiles/desktop_cpu.yaml", folder / "mine.yaml")
    for code in blocks(ROOT / "docs/plugins.md", "python"):
        if code.startswith("# my_plugins/"):
            write_named(code, folder)
    return folder


@pytest.fixture(scope="module")
def begun(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the pages to begin with: the later ones use what the earlier ones made."""
    return Path(shutil.copytree(material, tmp_path_factory.mktemp("begun") / "site"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_encoder: Path) -> None:
    """The default encoder is the tiny one, the demo has five clips of six seconds, and builds start no processes."""
    from edge_vad.converters import demo_command, encoders, local_engine

    described = encoders.load_encoder(str(tiny_encoder), taps=("fine", "coarse"))
    monkeypatch.setattr(encoders, "export", lambda *_: described)
    monkeypatch.setattr(local_engine.os, "sched_getaffinity", lambda _: {0})
    for name, value in {"N_NORMAL": 2, "N_TEST": 3, "SECONDS": 6.0}.items():
        monkeypatch.setattr(demo_command, name, value)


class Shell:
    """Runs the lines of a page in the current folder, `edge-vad` in this process."""

    def __init__(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cli, self._monkeypatch = cli, monkeypatch
        self.units: list[subprocess.Popen[bytes]] = []

    def run(self, line: str, code: int = 0) -> None:
        """One line; AssertionError where it does not end with ``code``."""
        words = shlex.split(line)
        if words[-1] == "&":
            self.units.append(subprocess.Popen([sys.executable, "-m", "edge_vad", *words[1:-1]], stdout=subprocess.DEVNULL))
        elif words == ["kill", "%1"]:
            self.units[0].terminate()
            assert self.units.pop(0).wait(30) == 0
        elif words[0] == "export":
            self._monkeypatch.setenv(*words[1].split("=", 1))
            self._monkeypatch.syspath_prepend(".")
        elif words[0] == "python":
            script = ROOT / words[1] if words[1].startswith("benchmarks/") else words[1]
            subprocess.run([sys.executable, script, *words[2:]], check=True, stdout=subprocess.DEVNULL)
        elif words[0] == "edge-vad":
            self._edge_vad(words[1:], code)
        else:
            subprocess.run(words, check=True)

    def _edge_vad(self, words: list[str], code: int) -> None:
        end = time.monotonic() + (PATIENCE_S if words[0] == "status" else 0)
        said = self._cli(*words)
        while said.code != code and time.monotonic() < end and all(unit.poll() is None for unit in self.units):
            time.sleep(0.5)
            said = self._cli(*words)
        assert said.code == code, f"edge-vad {shlex.join(words)}: {said.err}{said.out}"


@pytest.fixture
def shell(cli: Cli, monkeypatch: pytest.MonkeyPatch, small: None) -> Iterator[Shell]:
    shell = Shell(cli, monkeypatch)
    yield shell
    for unit in shell.units:
        unit.kill()
        unit.wait()


def write_named(text: str, folder: Path) -> None:
    """A block whose first line is a comment with a file's name is that file."""
    named = re.match(r"# ([\w./]+\.\w+)\n", text)
    if named:
        path = folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lines_of(block: str) -> Iterator[tuple[str, int]]:
    """(command, exit code that the page says) of a block."""
    for line in block.splitlines():
        command, _, comment = line.partition(" #")
        said = re.search(r"exit code (\d)", comment)
        if command.strip():
            yield command.strip(), int(said[1]) if said else 0


def here(command: str) -> str:
    """The command with what this machine has; what a page takes for granted is made when it is named."""
    from edge_vad.cli import main

    for named, instead in INSTEAD.items():
        command = command.replace(named, instead)
    if "owner.key" in command and not Path("owner.key").exists():
        assert main(["bundle", "keygen", "--out", "owner"]) == 0
    if "older.evb" in command:
        shutil.copy("unsigned.evb", "older.evb")
        assert main(["bundle", "sign", "older.evb", "--key", "owner.key"]) == 0
    return command.replace(ID, read_bundle("site.evb").id[:12]) if ID in command else command


done: set[str] = set()  # commands that were run, by any page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_runs(page: Path, begun: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begun)
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        write_named(block, begun)
        for line, code in lines_of(block) if language == "sh" else ():
            command = here(line)
            if command not in done or command.startswith(("edge-vad run --config", "export")):
                shell.run(command, code)
                done.add(command)


def test_the_pages_to_begin_with_have_their_commands_in_blocks_that_are_run() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not [block for kind, block in BLOCK.findall(text) if kind not in ("sh", "yaml") and "edge-vad " in block]
        assert "```sh" not in BLOCK.sub("", text), f"{page.name}: a block that is indented is not run"


def test_what_is_not_run_is_still_there_and_the_tests_in_its_place_too() -> None:
    commands = [command for document, command, complete in command_lines() if complete and document in OTHERS]
    for pattern, reason in NOT_RUN.items():
        assert any(re.search(pattern, command) for command in commands), pattern
        assert all((ROOT / path).exists() for path in re.findall(r"tests/[\w/.]+\w", reason)), reason
    assert sum(not any(re.search(pattern, command) for pattern in NOT_RUN) for command in commands) > 40


@pytest.mark.parametrize("document", OTHERS)
def test_commands_of_the_other_pages_run_where_they_are_cheap(
    document: str, material: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(material, tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.syspath_prepend(".")
    for command in dict.fromkeys(command for name, command, complete in command_lines() if name == document and complete):
        built = command.startswith("edge-vad build") and command in done  # with the same footage, a page or two before
        if not built and not any(re.search(pattern, command) for pattern in NOT_RUN):
            shell.run(here(command), EXIT_CODES.get(command, 0))
            done.add(command)
