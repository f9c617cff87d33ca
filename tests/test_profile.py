"""Profiles: every shipped one loads, every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_vad.errors import ProfileError
from edge_vad.plugins import available
from edge_vad.profile import Budget, Profile, load_profile, names

MINE = "name: mine\ndescription: my device\ninference:\n  threads: 2\n"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", names())
def test_every_shipped_profile_loads_and_names_things_that_exist(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name and profile.description
    assert profile.inference.backend in available("backends")
    assert profile.inference.bank in ("auto", *available("banks"))
    assert profile.build.stride >= 1 and 0 < profile.build.ratio <= 1 and profile.inference.threads >= 1


def test_the_devices_of_the_readme_are_there() -> None:
    assert {"desktop_cpu", "raspberry_pi_4", "raspberry_pi_5"} <= set(names())


def test_a_file_is_a_profile_with_defaults_for_the_rest(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, MINE))
    assert (profile.name, profile.inference.threads, profile.inference.backend) == ("mine", 2, "onnxruntime")
    assert profile.build == Profile("x", "y").build


def test_set_changes_single_values(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, MINE), ["inference.threads=4", "build.ratio=0.05", "inference.bank=hnsw"])
    assert (profile.inference.threads, profile.build.ratio, profile.inference.bank) == (4, 0.05, "hnsw")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINE + "  thraeds: 3\n", "unknown key 'thraeds' .did you mean 'threads'"),
        (MINE.replace("2", "two"), "inference: threads: expected int, found 'two'"),
        (MINE.replace("2", "2.5"), "threads: expected int, found 2.5"),
        ("name: mine\n", "'description' is missing"),
        ("name: [mine\n", "not valid YAML, line"),
        ("- a\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("name: !!python/object/apply:os.system ['true']\n", "not valid YAML, line 1"),
        (MINE + "build: 3\n", "build: expected keys and values"),
        (MINE + "build:\n  precision: int4\n", "'int4' is not allowed .did you mean 'int8'"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ProfileError, match=words) as caught:
        load_profile(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("inference.threads", "write key.key=value"),
        ("name.x=1", "'name' holds a value, not keys"),
        ("inference.treads=1", "did you mean 'threads'"),
        ("speed=1", "unknown key 'speed'"),
        ("inference.threads={", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_named(override: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        load_profile("desktop_cpu", [override])


def test_a_profile_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="did you mean 'raspberry_pi_5'"):
        load_profile("raspberry_pi5")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(str(tmp_path / "none.yaml"))
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(str(tmp_path / "mine.yaml"))


def test_a_budget_is_optional_and_so_is_each_bound(tmp_path: Path) -> None:
    assert load_profile(write(tmp_path, MINE)).budget == Budget(None, None, None, None)
    profile = load_profile(write(tmp_path, MINE + "budget:\n  fps: 10\n"), ["budget.p95_ms=40"])
    assert profile.budget == Budget(fps=10.0, p95_ms=40.0)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ("p95_ms: 0", "budget: p95_ms must lie in"),
        ("fps: -1", "budget: fps must lie in"),
        ("fps: .nan", "budget: fps must lie in"),
        ("p99_ms: 40", "budget: unknown key 'p99_ms' .did you mean 'p95_ms'"),
        ("memory_mb: much", "budget: memory_mb: expected float, found 'much'"),
    ],
)
def test_a_wrong_bound_is_named(bound: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=words):
        load_profile(write(tmp_path, f"{MINE}budget:\n  {bound}\n"))
