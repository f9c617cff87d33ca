"""Plain values to dataclasses: nothing is guessed, nothing is ignored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from edge_vad.errors import ProfileError
from edge_vad.strict import from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    kind: Literal["fast", "slow"] = "fast"
    ratio: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    size: tuple[int, int] = (1, 2)
    taps: tuple[str, ...] = ()
    limit: int | None = None
    on: bool = False
    inner: Inner = Inner()
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit == 0:
            raise ValueError("limit must not be 0")


def parse(values: Any) -> Outer:
    return from_plain(Outer, values, "mine.yaml", ProfileError)


def test_values_become_a_dataclass_and_back() -> None:
    plain = {
        "name": "a", "size": [3, 4], "taps": ["x", "y"], "limit": 7, "on": True,
        "inner": {"kind": "slow", "ratio": 1.0}, "weights": {"speed": 2.0},
    }  # fmt: skip
    made = parse(plain)
    assert made == Outer("a", (3, 4), ("x", "y"), 7, True, Inner("slow", 1.0), {"speed": 2.0})
    assert to_plain(made) == plain


def test_what_is_left_out_has_its_default_and_a_whole_number_is_a_float() -> None:
    assert parse({"name": "a", "inner": {"ratio": 1}}) == Outer("a", inner=Inner("fast", 1.0))
    assert parse({"name": "a", "limit": None}).limit is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nmae": "a"}, "unknown key 'nmae' .did you mean 'name'"),
        ({}, "the key 'name' is missing"),
        ({"name": 3}, "name: expected str, found 3"),
        ({"name": "a", "size": [1]}, "size: expected 2 values, found 1"),
        ({"name": "a", "size": "12"}, "size: expected a list"),
        ({"name": "a", "size": [1, 2.5]}, "size: expected int, found 2.5"),
        ({"name": "a", "limit": "x"}, "limit: expected int"),
        ({"name": "a", "limit": True}, "limit: expected int, found True"),
        ({"name": "a", "on": 1}, "on: expected bool, found 1"),
        ({"name": "a", "inner": {"ratio": "much"}}, "inner: ratio: expected float, found 'much'"),
        ({"name": "a", "inner": {"ratio": True}}, "expected float, found True"),
        ({"name": "a", "inner": {"kind": "slwo"}}, "'slwo' is not allowed .did you mean 'slow'"),
        ({"name": "a", "inner": None}, "inner: expected keys and values, found NoneType"),
        ({"name": "a", "weights": [1]}, "weights: expected keys and values"),
        ({"name": "a", "weights": {"speed": "x"}}, "weights.speed: expected float"),
        ({"name": "a", "limit": 0}, "limit must not be 0"),
        ([1], "expected keys and values, found list"),
        (None, "found NoneType"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_key(values: Any, words: str) -> None:
    with pytest.raises(ProfileError, match=rf"^mine\.yaml: .*{words}|^mine\.yaml: {words}"):
        parse(values)
