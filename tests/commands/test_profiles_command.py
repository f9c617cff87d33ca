"""edge-vad profiles: the list, one with its comments, a file that is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Outcome

from edge_vad.profile import load_profile, names

Cli = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("words", [(), ("list",)])
def test_the_list_has_name_description_and_budget(words: tuple[str, ...], cli: Cli) -> None:
    said = cli("profiles", *words)
    lines = said.out.splitlines()
    assert said.code == 0 and [line.split()[0] for line in lines] == names()
    assert all(load_profile(name).description in line for name, line in zip(names(), lines, strict=True))
    assert "7.5 fps, 175 ms p95, 256 MB, 80 C" in next(line for line in lines if line.startswith("raspberry_pi_5 "))


def test_one_is_shown_with_its_comments(cli: Cli) -> None:
    text = (ROOT / "profiles/raspberry_pi_5.yaml").read_text()
    assert cli("profiles", "raspberry_pi_5").out == cli("profiles", "show", "raspberry_pi_5").out == text


def test_a_file_is_checked(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndescription: mine\ninference:\n  backend: my_plugins.own\n  bank: hnsw\n")
    for words in (("validate", path), (path,), ("show", path)):
        said = cli("profiles", *words)
        assert (said.code, said.out, said.err) == (0, f"{path}: valid\n", "")
    assert cli("profiles", "validate", "desktop_cpu").out == "desktop_cpu: valid\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inference:\n  thraeds: 2\n", "unknown key 'thraeds' (did you mean 'threads'?)"),
        ("budget:\n  p95_ms: -3\n", "budget: p95_ms must lie in"),
        (
            "inference:\n  backend: onxruntime\n",
            "inference: backend: there is no 'onxruntime' (did you mean 'onnxruntime'?)",
        ),
        ("inference:\n  bank: hsnw\n", "inference: bank: there is no 'hsnw' (did you mean 'hnsw'?)"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(text: str, words: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ndescription: mine\n{text}")
    said = cli("profiles", "validate", path)
    assert said.code == 1 and said.out == "" and len(said.err.splitlines()) == 1
    assert str(path) in said.err and words in said.err


@pytest.mark.parametrize("words", [("list", "x"), ("show",), ("validate", "a", "b"), ("a", "b")])
def test_wrong_words_are_wrong_use(words: tuple[str, ...], cli: Cli) -> None:
    said = cli("profiles", *words)
    assert said.code == 2 and len(said.err.splitlines()) == 1
