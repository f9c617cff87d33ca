"""Which of the measured settings a device should run with, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_vad.bundle import Bundle
from edge_vad.errors import ReportError
from edge_vad.profile import Budget, Profile
from edge_vad.profiling.cell import Cell
from edge_vad.profiling.header import main_model
from edge_vad.profiling.matrix import Row, by_speed

AT_ONCE = 12  # settings that are all measured; of more, the banks follow when the rest is chosen
AS_FAST = 1.05  # of the fastest p95: there CPU time decides

Measure = Callable[[Sequence[Cell], str], list[Row]]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found. rows: everything that was measured, fastest first; notes: in words, for people and for the file.

    stride: of ``edge-vad build`` where that of the profile asks too much, else None. warnings: what a person should know.
    A trained network keeps the stride that it was trained with: there it is a warning only.
    """

    picked: Row
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    stride: int | None = None


def tune(settings: Sequence[Cell], measure: Measure, bundles: Sequence[Bundle], profile: Profile) -> Tuned:
    """Measure the settings, all of them or coordinate by coordinate, and choose. Raises ReportError where none will do."""
    rows, how = search(settings, measure, profile.budget)
    picked, why = choose(rows, profile.budget)
    period_s, trained = float(bundles[0].calibration["period_s"]), is_trained(bundles[0])
    stride, asked = (None, too_slow(picked, period_s)) if trained else stride_for(picked, profile, period_s)
    precisions = [precision_of(bundle) for bundle in bundles]
    slow = int8_is_slower(rows, precisions)
    return Tuned(
        picked,
        tuple(by_speed(rows)),
        (how, why, *unfit(rows, profile.budget)),
        (*slow, *asked),
        stride,
    )


def search(settings: Sequence[Cell], measure: Measure, budget: Budget) -> tuple[list[Row], str]:
    """All settings where they are few; else every bundle, backend and thread count with one bank, then the other banks."""
    first, banks = with_one_bank(settings)
    if len(settings) <= AT_ONCE or len(first) == len(settings):
        return measure(settings, "tune"), f"measured: all {len(settings)} settings"
    rows = measure(first, "tune, one bank")
    best, _ = choose(rows, budget)
    one, *others = banks[best.cell.bundle]
    if not others:
        return rows, f"measured: {len(first)} settings with one bank; the best of them searches none"
    rows += measure([best.cell, *(replace(best.cell, bank=bank) for bank in others)], "tune, banks")
    how = f"measured: {len(first)} settings with bank {one}, then {', '.join([one, *others])} with the best of them"
    # The second measurement of the best one stands beside those that it is compared with.
    return [row for row in rows if row.cell != best.cell or row is not best], how


def n_measured(settings: Sequence[Cell]) -> int:
    """How many settings `search` measures."""
    first, banks = with_one_bank(settings)
    return len(settings) if len(settings) <= AT_ONCE else min(len(settings), len(first) + max(map(len, banks.values())))


def with_one_bank(settings: Sequence[Cell]) -> tuple[list[Cell], dict[int, list[str]]]:
    """The settings with the first bank of their bundle, and all banks by bundle."""
    banks: dict[int, list[str]] = {}
    for cell in settings:
        if cell.bank not in banks.setdefault(cell.bundle, []):
            banks[cell.bundle].append(cell.bank)
    return [cell for cell in settings if cell.bank == banks[cell.bundle][0]], banks


def choose(rows: Sequence[Row], budget: Budget) -> tuple[Row, str]:
    """The fastest p95 among those that run, score alike and fit the memory; within 5 % the one of the least CPU time."""
    fit = [row for row in rows if not why_not(row, budget)]
    if not fit:
        reasons = "; ".join(unfit(rows, budget))
        raise ReportError(f"none of the {len(rows)} settings can be used here: {reasons}")
    fastest = min(fit, key=lambda row: row.wall_ms["p95"])
    close = [row for row in fit if row.wall_ms["p95"] <= AS_FAST * fastest.wall_ms["p95"]]
    best = min(close, key=lambda row: row.cpu_ms)
    times = f"p95 {best.wall_ms['p95']:.2f} ms wall, {best.cpu_ms:.2f} ms CPU, {best.used_mb:.0f} MB"
    if best is fastest:
        return best, f"chosen: {best.cell}: the fastest p95 of the {len(fit)} that can be used ({times})"
    other = f"{fastest.cell} has {fastest.wall_ms['p95']:.2f} ms p95 and takes {fastest.cpu_ms:.2f} ms CPU"
    return best, f"chosen: {best.cell}: the least CPU time within 5 % of the fastest p95 ({times}; {other})"


def why_not(row: Row, budget: Budget) -> str:
    """Why a setting is not for use here; "" where it is."""
    if row.error:
        return row.error
    if not row.equal:
        return f"scores differ by {row.deviation:.2g} (allowed: {row.allowed:g})"
    if budget.memory_mb is not None and row.used_mb > budget.memory_mb:
        return f"{row.used_mb:.0f} MB, over budget.memory_mb={budget.memory_mb:g}"
    return ""


def unfit(rows: Sequence[Row], budget: Budget) -> list[str]:
    """One line for each reason, with the settings that it keeps out."""
    why: dict[str, list[str]] = {}
    for row in rows:
        if reason := why_not(row, budget):
            why.setdefault(reason, []).append(f"{row.cell} (bundle {row.cell.bundle + 1})")
    return [f"not used: {'; '.join(settings)}: {reason}" for reason, settings in why.items()]


def precision_of(bundle: Bundle) -> str:
    """Of the bundle's encoder or trained network; ``none`` where its method has neither."""
    model = main_model(bundle.manifest.models, None)
    return model.precision if model else "none"


def is_trained(bundle: Bundle) -> bool:
    """Whether the method is a trained network, which belongs to the stride that it was trained with."""
    return "network" in bundle.manifest.models


def int8_is_slower(rows: Sequence[Row], precisions: Sequence[str]) -> list[str]:
    """A warning where the fastest INT8 setting takes longer than the fastest fp32 one, by the mean of the wall time."""
    best: dict[str, Row] = {}
    for row in rows:
        kind = precisions[row.cell.bundle]
        if not row.error and (kind not in best or row.wall_ms["mean"] < best[kind].wall_ms["mean"]):
            best[kind] = row
    if not {"int8", "fp32"} <= best.keys() or best["int8"].wall_ms["mean"] <= best["fp32"].wall_ms["mean"]:
        return []
    int8, fp32 = (f"{best[k].wall_ms['mean']:.2f} ms ({best[k].cell})" for k in ("int8", "fp32"))
    return [f"INT8 is slower than fp32 on this device: mean {int8} against {fp32}"]


def stride_for(picked: Row, profile: Profile, period_s: float) -> tuple[int | None, tuple[str, ...]]:
    """The stride with which this device keeps up, and a line that says so; None and nothing where it does already.

    Asked for are the budget's frames per second and those of the bundle, one each ``period_s``; with stride s' in the place
    of s, the same camera asks for s / s' of them.
    """
    asked = max(1 / period_s, profile.budget.fps or 0.0)
    if picked.fps >= asked:
        return None, ()
    stride = math.ceil(profile.build.stride * asked / picked.fps - 1e-9)
    left = asked * profile.build.stride / stride
    line = (
        f"stride: {picked.fps:.1f} processed frames per second here, {asked:.4g} are asked for with build.stride "
        f"{profile.build.stride}; with {stride} it would be {left:.4g}: build the bundle again with this profile"
    )
    return stride, (line,)


def too_slow(picked: Row, period_s: float) -> tuple[str, ...]:
    """A line where this device does not keep up with what a trained network asks for, one frame each ``period_s``."""
    if picked.fps >= 1 / period_s:
        return ()
    return (
        f"{picked.fps:.1f} processed frames per second here, the network was trained for {1 / period_s:.4g}: train one with "
        "a larger --stride, or a smaller --size or --width (edge-vad train)",
    )


def tuned_profile(found: Tuned, base: Profile, name: str, description: str, precisions: Sequence[str]) -> Profile:
    """The base profile with the chosen values. fallback: what the base allowed, without what runs first now."""
    inference = found.picked.cell.inference(base.inference)
    first = inference.choices[0]
    fallback = tuple(str(choice) for choice in base.inference.choices[1:] if choice != first)
    precision = precisions[found.picked.cell.bundle]
    build = base.build if precision == "none" else replace(base.build, precision=precision)  # type: ignore[arg-type]
    if found.stride:
        build = replace(build, stride=found.stride)
    return replace(base, name=name, description=description, inference=replace(inference, fallback=fallback), build=build)


def changes(base: Profile, tuned: Profile) -> dict[str, str]:
    """What was changed, by ``section.key``, with the old value in words."""
    found = {}
    for section, keys in (
        ("inference", ("backend", "device", "threads", "precision", "bank")),
        ("build", ("precision", "stride")),
    ):
        for key in keys:
            before, after = (getattr(getattr(profile, section), key) for profile in (base, tuned))
            if before != after:
                found[f"{section}.{key}"] = f"measured; was {before}"
    return found
