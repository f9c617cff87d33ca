"""What tune chooses from what was measured: known rows in, nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from edge_vad.errors import ReportError
from edge_vad.profile import Budget, Inference, Profile
from edge_vad.profile_text import MEANING, SECTIONS, profile_text
from edge_vad.profiling.cell import Cell
from edge_vad.profiling.matrix import Row
from edge_vad.profiling.tuning import (
    AT_ONCE,
    Tuned,
    choose,
    int8_is_slower,
    n_measured,
    search,
    stride_for,
    too_slow,
    tuned_profile,
    unfit,
)

CELL = Cell(0, "onnxruntime", "cpu", "fp32", 1, "exact")


def row(
    p95: float = 20.0, cpu: float = 10.0, mb: float = 100.0, cell: Cell = CELL, mean: float = 16.0, **changed: object
) -> Row:
    made = Row(cell, {"mean": mean, "p95": p95, "p99": p95 + 1}, cpu, mb, deviation=0.0, allowed=0.01, n_frames=100)
    return replace(made, **changed)  # type: ignore[arg-type]


def on(**changed: object) -> Cell:
    return replace(CELL, **changed)  # type: ignore[arg-type]


def test_the_fastest_p95_is_chosen() -> None:
    best, why = choose([row(30), row(20, cell=on(threads=2)), row(25, cpu=1.0)], Budget())
    assert best.cell.threads == 2 and "the fastest p95 of the 3" in why and "20.00 ms" in why


def test_within_five_percent_the_least_cpu_time_is_chosen() -> None:
    rows = [row(20, cpu=30), row(20.9, cpu=12, cell=on(threads=2)), row(21.1, cpu=5, cell=on(threads=4))]
    best, why = choose(rows, Budget())
    assert best.cell.threads == 2 and "the least CPU time within 5 %" in why and "takes 30.00 ms CPU" in why


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row(1, error="golden self-test: embedding.spatial differs"), "golden self-test"),
        (row(1, deviation=0.02), "scores differ by 0.02 (allowed: 0.01)"),
        (row(1, mb=301), "301 MB, over budget.memory_mb=300"),
    ],
)
def test_what_fails_scores_otherwise_or_needs_too_much_memory_is_never_chosen_and_named(bad: Row, words: str) -> None:
    budget = Budget(memory_mb=300)
    fast = replace(bad, cell=on(backend="my.fast"), wall_ms={} if bad.error else bad.wall_ms)
    best, _ = choose([fast, row(50)], budget)
    assert best.cell == CELL
    [line] = unfit([fast, row(50)], budget)
    assert words in line and "my.fast@cpu" in line
    with pytest.raises(ReportError, match="none of the 1 settings can be used here") as refused:
        choose([fast], budget)
    assert "\n" not in str(refused.value)


def test_int8_that_is_slower_is_warned_of_in_one_line() -> None:
    slow = row(mean=40.0, cell=on(bundle=1, threads=2))
    rows = [row(mean=16.0, cell=on(bundle=0)), row(mean=12.5, cell=on(bundle=1)), slow]
    [line] = int8_is_slower(rows, ["int8", "fp32"])
    assert "INT8 is slower than fp32" in line and "16.00 ms" in line and "12.50 ms" in line and "\n" not in line
    assert int8_is_slower(rows, ["fp32", "int8"]) == []
    assert int8_is_slower(rows[:1], ["int8", "fp32"]) == []
    assert int8_is_slower([rows[0], replace(rows[1], error="no")], ["int8", "fp32"]) == []


@pytest.mark.parametrize(
    ("mean", "fps", "stride", "period_s", "expected"),
    [
        (100.0, None, 2, 0.2, None),  # 10 fps here, 5 asked for by the bundle
        (100.0, 10.0, 2, 0.2, None),  # exactly the budget
        (250.0, None, 2, 0.2, 3),  # 4 fps here, 5 asked for: 2 * 5 / 4 = 2.5
        (250.0, 8.0, 2, 0.2, 4),  # 8 asked for: 2 * 8 / 4
    ],
)
def test_the_stride_is_left_alone_or_the_next_that_this_device_holds(
    mean: float, fps: float | None, stride: int, period_s: float, expected: int | None
) -> None:
    base = Profile("mine", "mine", budget=Budget(fps=fps))
    base = replace(base, build=replace(base.build, stride=stride))
    found, lines = stride_for(row(mean=mean), base, period_s)
    assert found == expected and len(lines) == (expected is not None)
    if found:
        assert f"with {found} it would be" in lines[0]
        asked = max(fps or 0, 1 / period_s)
        assert asked * stride / found <= 1000 / mean < asked * stride / (found - 1)


def test_a_network_that_is_too_slow_here_is_said_and_its_stride_stays() -> None:
    assert too_slow(row(mean=300.0), period_s=0.3) == ()
    [line] = too_slow(row(mean=400.0), period_s=0.3)
    assert "2.5 processed frames per second here, the network was trained for 3.333" in line and "edge-vad train" in line


def test_bundles_with_and_without_banks_are_all_measured() -> None:
    asked: list[list[Cell]] = []

    def measure(cells: Sequence[Cell], label: str) -> list[Row]:
        asked.append(list(cells))
        return [row(200 / cell.threads - 5 * cell.bundle, cell=cell) for cell in cells]

    banks = {0: ("",), 1: ("exact", "hnsw")}
    many = [on(bundle=b, threads=n, bank=bank) for b in banks for n in range(1, AT_ONCE) for bank in banks[b]]
    search(many, measure, Budget())
    assert {(cell.bundle, cell.bank) for cell in asked[0]} == {(0, ""), (1, "exact")} and len(asked[0]) == 2 * (AT_ONCE - 1)
    assert [cell.bank for cell in asked[1]] == ["exact", "hnsw"] and sum(map(len, asked)) == n_measured(many)
    without = [cell for cell in many if cell.bundle == 0]
    rows, how = search(without * 2, measure, Budget())
    assert len(rows) == 2 * (AT_ONCE - 1) and "all 22" in how


def test_few_settings_are_all_measured_and_many_coordinate_by_coordinate() -> None:
    asked: list[list[Cell]] = []

    def measure(cells: Sequence[Cell], label: str) -> list[Row]:
        asked.append(list(cells))
        return [row(100 / cell.threads - 5 * (cell.bank == "hnsw"), cell=cell) for cell in cells]

    few = [on(threads=n, bank=bank) for n in (1, 2) for bank in ("exact", "hnsw")]
    rows, how = search(few, measure, Budget())
    assert asked == [few] and len(rows) == 4 and "all 4" in how
    asked.clear()
    many = [on(threads=n, bank=bank) for n in range(1, AT_ONCE) for bank in ("exact", "hnsw", "compact")]
    rows, how = search(many, measure, Budget())
    best = on(threads=AT_ONCE - 1)
    assert [len(cells) for cells in asked] == [AT_ONCE - 1, 3] and {cell.bank for cell in asked[0]} == {"exact"}
    assert asked[1] == [best, replace(best, bank="hnsw"), replace(best, bank="compact")]
    assert len({r.cell for r in rows}) == len(rows) == AT_ONCE + 1 and "with bank exact, then" in how
    assert choose(rows, Budget())[0].cell == replace(best, bank="hnsw")


def test_the_tuned_profile_keeps_what_was_not_measured(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = Profile(
        "board", "a board", Inference(fallback=("openvino@cpu", "torch@cpu"), engine_cache="/var/x"), budget=Budget(5)
    )
    picked = row(cell=Cell(1, "openvino", "cpu", "fp32", 4, "hnsw"))
    made = tuned_profile(Tuned(picked, (picked,), (), (), stride=6), base, "mine", 'a "board": tuned', ["int8", "fp32"])
    assert made.inference == Inference("openvino", ("torch@cpu",), "cpu", 4, "hnsw", "fp32", "/var/x")
    assert (made.build.precision, made.build.stride, made.build.ratio) == ("fp32", 6, base.build.ratio)
    assert (made.trust, made.store, made.budget) == (base.trust, base.store, base.budget)
    from edge_vad.profile import load_profile

    path = tmp_path_factory.mktemp("tuned") / "mine.yaml"
    path.write_text(profile_text(made, ["head: # yes", ""], {"inference.bank": "was auto"}), encoding="utf-8")
    assert load_profile(str(path)) == made
    assert "(was auto)" in path.read_text() and path.read_text().startswith("# head: # yes\n#\n")


def test_every_key_of_a_profile_has_a_meaning() -> None:
    from edge_vad.strict import to_plain

    plain = to_plain(Profile("a", "b"))
    nested = {f"{section}.{key}" for section, values in plain.items() if isinstance(values, dict) for key in values}
    assert nested | {key for key in plain if key not in SECTIONS} == set(MEANING)
    assert {key for key, value in plain.items() if isinstance(value, dict)} == set(SECTIONS)
