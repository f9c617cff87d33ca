"""The header of a report in words: what was measured, on what, with what, and how the board felt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]

RARE = 0.75  # part of the frames; of the mean, from where on p50 says little
WAITED = 1.25  # wall time against CPU time, from where on it is worth a word


def facts(report: Report) -> list[tuple[str, str]]:
    """(name, text) in the order of reading; what the board did not tell is left out."""
    bundle, settings, run = report["bundle"], report["settings"], report["run"]
    size = "x".join(str(side) for side in bundle["image_size"] or ["any"])
    rows = ", ".join(f"{name} {n} ({settings['banks'].get(name, settings['bank'])})" for name, n in bundle["rows"].items())
    found = [
        ("bundle", f"{bundle['name']} serial {bundle['serial']} ({bundle['id'][:12]}), {bundle['method']}, {size} pixels"),
        ("models", ", ".join(f"{role} {text}" for role, text in bundle["models"].items())),
        ("bank rows", rows),
        ("settings", _settings(settings, bool(rows))),
        ("frames", _frames(report)),
        ("measured", _measured(run)),
        ("speed", f"{report['fps']:.1f} fps (1000 / mean of the wall time)"),
        ("board", _board(report["board"])),
        *_telemetry(report["board"]),
        ("memory", _memory(report["memory"])),
        *(("power", _power(name, told)) for name, told in report["power"].items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("written", report["written"]),
    ]
    return [(name, text) for name, text in found if text]


def notes(report: Report) -> list[str]:
    """What to mind when reading the numbers."""
    run, recorder = report["run"], report["recorder"]
    cost = f"{recorder['records_per_frame']:g} records of {recorder['ns_per_record'] / 1000:.1f} us a frame"
    found = [
        "wall: what a clock on the wall shows; CPU: processor time of all threads of the process",
        f"a stage's percentiles are of the frames in which it ran, its mean of all; the recorder: {cost} = "
        f"{100 * recorder['share_of_cpu']:.2f} % of the CPU time",
        *run["notes"],
    ]
    waited = report["end_to_end"]["wall_ms"]["mean"] / max(report["end_to_end"]["cpu_ms"]["mean"], 1e-6)
    if waited > WAITED:
        found.append(f"wall time is {waited:.1f} times CPU time: frames waited, for other programs or for a device")
    stages, wall = report["stages"], report["end_to_end"]["wall_ms"]
    dearest = max(stages, key=lambda name: stages[name]["mean_ms"]["wall"])
    n_ran = stages[dearest]["n_frames"]
    if n_ran < RARE * run["n_frames"] and wall["p50"] < RARE * wall["mean"]:
        found.append(
            f"{dearest} ran in {n_ran} of {run['n_frames']} frames, p50 end to end is of the others: mean and p95 count"
        )
    if run["n_late"]:
        found.append(f"{run['n_late']} frames could not begin in time: a camera would have lost them")
    if run["n_passed"]:
        found.append(f"{run['n_passed']} frames were passed over by the detector and do not count")
    if run["n_lost"]:
        found.append(f"{run['n_lost']} stages could not be recorded: they are part of 'other'")
    if run["full"]:
        found.append("the recording was full before the time was over")
    return found


def times(report: Report) -> list[list[str]]:
    """Head and rows of the table of times: end to end by both clocks, then the stages by wall clock, largest first."""
    whole = report["end_to_end"]
    names = [name for name in whole["wall_ms"] if name not in ("std", "min")]
    rows = [["ms of a processed frame", *names, "CPU mean", "frames"]]
    n = str(report["run"]["n_frames"])
    rows.append(["end to end, wall", *_cells(whole["wall_ms"], names), f"{whole['cpu_ms']['mean']:.2f}", n])
    rows.append(["end to end, CPU", *_cells(whole["cpu_ms"], names), f"{whole['cpu_ms']['mean']:.2f}", n])
    for name, stage in sorted(report["stages"].items(), key=lambda item: -item[1]["mean_ms"]["wall"]):
        means = stage["mean_ms"]
        times_ms = {**stage["wall_ms"], "mean": means["wall"]}
        rows.append([name, *_cells(times_ms, names), f"{means['cpu']:.2f}", str(stage["n_frames"])])
    return rows


def _cells(values: Mapping[str, float], names: list[str]) -> list[str]:
    return [f"{values[name]:.2f}" for name in names]


def _settings(settings: Report, has_banks: bool) -> str:
    computes = "" if settings["precision"] == "fp32" else f" in {settings['precision']}"
    bank = f", bank {settings['bank']}" if has_banks else ""
    return "{profile}: {backend} on {device}{computes}, threads {threads}{bank}".format_map(
        {**settings, "computes": computes, "bank": bank}
    )


def _frames(report: Report) -> str:
    run = report["run"]
    return f"{report['settings']['source']}; {run['n_frames_in_memory']} in memory, {report['memory']['frames_mb']:.0f} MB"


def _measured(run: Report) -> str:
    pace = f"one each {run['period_s']:g} s" if run["paced"] else "back to back"
    return f"{run['n_frames']} processed frames in {run['duration_s']:.1f} s, {pace}, after {run['warm_up']} of warm-up"


def _board(board: Report) -> str:
    parts = [board.get("model"), board.get("processor"), board.get("gpu"), board["machine"]]
    cpus = f"{board['n_usable_cpus']} of {board['n_cpus']} CPUs"
    return ", ".join([*(part for part in parts if part), cpus, board["os"]])


def _telemetry(board: Report) -> list[tuple[str, str]]:
    """Load, governor, clock, temperature and throttling: before and after the run, and the extreme of it."""
    before, after = board["before"], board["after"]
    found = []
    for key, name, unit, extreme in (
        ("load", "load", "", None),
        ("temperature_c", "temperature", " C", "temperature_c_max"),
        ("gpu_temperature_c", "GPU temperature", " C", "gpu_temperature_c_max"),
    ):
        if key in before and key in after:
            most = f", at most {board[extreme]:g}{unit}" if extreme else ""
            found.append((name, f"{before[key]:g}{unit} before, {after[key]:g}{unit} after{most}"))
    for key, name in (("clock_mhz_range", "clock"), ("gpu_clock_mhz_range", "GPU clock")):
        if key in board:
            low, high = board[key]
            governor = f", governor {board['governor']}" if "governor" in board and key == "clock_mhz_range" else ""
            found.append((name, f"{low:.0f} to {high:.0f} MHz{governor}"))
    if "throttled_in_run" in board:
        told = ", ".join(before.get("throttled", [])) or "nothing"
        found.append(("throttled", f"{', '.join(board['throttled_in_run']) or 'no'} in the run; before it: {told}"))
    return found


def _memory(memory: Report) -> str:
    text = f"{memory['used_mb']:.0f} MB at most, without the frames in memory ({memory['peak_mb']:.0f} with them)"
    return text + (f"; {memory['resident_mb']:.0f} MB resident after the run" if "resident_mb" in memory else "")


def _power(name: str, told: Report) -> str:
    return f"{name}: {told['mean_w']:.2f} W on average, {told['joule_per_frame']:.3f} J a frame (all that ran there)"
