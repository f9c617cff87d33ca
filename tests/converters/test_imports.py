"""A memory of VideoPatchCore or anomalib becomes a bundle; what is damaged, dangerous or of other features is refused."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from edge_vad.converters.imports import (
    LARGEST,
    MAX_BYTES,
    Imported,
    check_alike,
    read_anomalib,
    read_videopatchcore,
    replaced,
    thinned,
)
from edge_vad.converters.memory import Memory
from onnx import TensorProto, helper, numpy_helper
from tiny import Outcome

from edge_vad import Detector, open_camera, tensorfile
from edge_vad.bundle import read_bundle
from edge_vad.errors import ForeignMemoryError
from edge_vad.manifest import LICENSES
from edge_vad.profile import load_profile

Cli = Callable[..., Outcome]
ROWS = np.random.default_rng(0).uniform(0, 3, (6, 4)).astype(np.float32)


def saved(folder: Path, value: Any, kind: str = "spatial") -> Path:
    """A file as VideoPatchCore names it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}_memory_bank_0.05.pt"
    torch.save(value, path)
    return path


def stored_rows(bundle: Path, name: str) -> np.ndarray:
    read = read_bundle(bundle)
    arrays, _ = tensorfile.load(read.members[read.manifest.banks[name].file], name)
    return arrays["rows"].astype(np.float32)


def scores_of(bundle: Path, clip: Path) -> np.ndarray:
    detector = Detector.open(bundle, load_profile("desktop_cpu", ()))
    with open_camera(clip) as camera:
        return np.array([detector.process(frame).score for frame in camera.frames()])


@pytest.fixture(scope="module")
def banks(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of the tiny bundle as somebody else's files; spatial ones are not of length 1 there."""
    folder = tmp_path_factory.mktemp("banks")
    saved(folder, torch.from_numpy(stored_rows(tiny_bundle, "spatial") * 3))
    saved(folder, torch.from_numpy(stored_rows(tiny_bundle, "temporal")), "temporal")
    return folder


@pytest.fixture(scope="module")
def other_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips that the tiny bundle has not seen."""
    folder = tmp_path_factory.mktemp("other")
    for number in (3, 4):
        tiny.write_clip(folder / f"{number:02d}", 40, seed=number)
    return folder


@pytest.fixture
def imports(cli: Cli, tiny_encoder: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """`edge-vad bundle import` with the tiny encoder, as tiny.build_arguments build."""
    config = tmp_path / "config.yaml"
    config.write_text("ratio: 0.05\n")

    def run(*more: object) -> Outcome:
        said = ["--encoder", tiny_encoder, "--taps", "fine,coarse", "--jobs", 1, "--config", config]
        return cli("bundle", "import", "--out", tmp_path / "site.evb", *said, *more)

    return run


def refused(outcome: Outcome, *words: object) -> None:
    """The last line says every word, and no bundle is there."""
    assert outcome.code == 1 and outcome.out == "", outcome
    line = outcome.err.splitlines()[-1]
    assert line.startswith("edge-vad bundle: ") and "Traceback" not in outcome.err
    for word in words:
        assert str(word) in line


# From files to bundles


def test_a_bundle_comes_back_from_its_own_rows(
    imports: Cli,
    banks: Path,
    footage: Path,
    tiny_bundle: Path,
    other_footage: Path,
    tmp_path: Path,
    cli: Cli,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = imports("--vpc-banks", banks, "--normal", footage)
    assert said.code == 0, said
    assert said.out.count("(imported)") == 2 and "velocity 17x3 (footage)" in said.out
    out = tmp_path / "site.evb"
    for name in ("spatial", "temporal", "velocity"):
        np.testing.assert_allclose(stored_rows(out, name), stored_rows(tiny_bundle, name), atol=1e-3)
    assert b"spatial memory: spatial_memory_bank_0.05.pt" in read_bundle(out).members[LICENSES]
    assert cli("bundle", "check", out).code == 0
    # Each row is left out where the part that it is of is scored, as in a build: the same threshold, too.
    original, found = (scores_of(bundle, other_footage / "03") for bundle in (tiny_bundle, out))
    assert original.std() > 0.1
    np.testing.assert_allclose(found, original, atol=0.01)
    assert "591 rows are of this very footage" in caplog.text


def test_an_imported_memory_is_calibrated_on_footage_that_it_has_not_seen(
    imports: Cli,
    banks: Path,
    tiny_bundle: Path,
    footage: Path,
    other_footage: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = imports("--vpc-banks", banks, "--normal", other_footage, "--ratio", 0.5)
    assert said.code == 0 and "very footage" not in caplog.text, said
    assert said.out.count("(imported)") == 2
    n_all, n_kept = (len(stored_rows(bundle, "spatial")) for bundle in (tiny_bundle, tmp_path / "site.evb"))
    assert n_kept == round(n_all / 2)
    scores = scores_of(tmp_path / "site.evb", footage / "01")
    assert np.isfinite(scores).all() and scores.std() > 0 and np.median(scores) < 1


def test_the_memory_of_anomalib_is_the_spatial_bank(
    imports: Cli, banks: Path, other_footage: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = torch.load(next(banks.glob("spatial*")), weights_only=True)
    torch.save({"model.memory_bank": rows, "model.conv.weight": torch.ones(2)}, tmp_path / "model.pt")
    said = imports("--anomalib", tmp_path / "model.pt", "--normal", other_footage)
    assert said.code == 0 and said.out.count("(imported)") == 1, said
    found, own = (stored_rows(bundle, "spatial") for bundle in (tmp_path / "site.evb", tiny_bundle))
    np.testing.assert_allclose(found, own, atol=1e-3)


def test_without_footage_there_is_no_bundle(imports: Cli, banks: Path) -> None:
    refused(imports("--vpc-banks", banks), "no threshold", "--normal")


def test_rows_of_another_width_are_refused_with_both_numbers(imports: Cli, footage: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "banks", torch.rand(50, 24))
    refused(imports("--vpc-banks", path.parent, "--normal", footage), path, "24", "16", "local.split_channels")
    assert not (tmp_path / "site.evb").exists()


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
def test_features_in_another_order_are_refused(
    kind: str, imports: Cli, banks: Path, other_footage: Path, tmp_path: Path
) -> None:
    rows = torch.load(next(banks.glob(f"{kind}*")), weights_only=True)
    path = saved(tmp_path / "banks", rows.flip(1), kind)
    refused(imports("--vpc-banks", path.parent, "--normal", other_footage), path, "other features", "taps")
    assert not (tmp_path / "site.evb").exists()


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_temporal_features_of_another_scale_are_refused(
    scale: float, imports: Cli, banks: Path, other_footage: Path, tmp_path: Path
) -> None:
    rows = torch.load(next(banks.glob("temporal*")), weights_only=True)
    path = saved(tmp_path / "banks", rows * scale, "temporal")
    refused(imports("--vpc-banks", path.parent, "--normal", other_footage), path, "mean and std")


def test_a_bank_without_a_weight_is_left_out_and_said(
    imports: Cli, banks: Path, other_footage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = saved(tmp_path / "high", torch.rand(5, 16), "highlevel")
    saved(tmp_path / "high", torch.tensor([[0.1, -0.2]]), "temporal")  # signed, as the published ones: not even read
    (tmp_path / "config.yaml").write_text("ratio: 0.05\nweights: {spatial: 1.0, speed: 1.0}\n")
    said = imports("--vpc-banks", banks / "none", path.parent, "--normal", other_footage)
    refused(said, "no spatial_memory_bank_RATIO.pt")
    assert "not imported, as it has no weight (weights in --config): temporal, highlevel" in caplog.text
    refused(imports("--vpc-banks", path.parent, "--normal", other_footage, "--banks", "highlevel"), path, "no weight")
    spatial = next(banks.glob("spatial*"))
    (path.parent / spatial.name).write_bytes(spatial.read_bytes())
    assert imports("--vpc-banks", path.parent, "--normal", other_footage).out.count("(imported)") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--banks", "spacial"), ("did you mean 'spatial'",)),
        (("--banks", "highlevel"), ("no spatial|temporal|highlevel", "in it")),
        (("--ratio", "0"), ("--ratio", "0..1")),
        (("--jobs", "0"), ("--jobs",)),
    ],
)
def test_wrong_options_end_on_one_line(
    options: tuple[str, ...], words: tuple[str, ...], imports: Cli, banks: Path, footage: Path
) -> None:
    said = imports("--vpc-banks", banks, "--normal", footage, *options)
    refused(said, *(word.replace("spatial|temporal|", "") for word in words))


# What is read


@pytest.mark.parametrize(
    "value",
    [
        torch.from_numpy(ROWS),
        torch.from_numpy(ROWS).double(),
        torch.nn.Parameter(torch.from_numpy(ROWS)),
        {"bank": torch.from_numpy(ROWS)},
        [torch.from_numpy(ROWS)],
        torch.from_numpy(ROWS.T.copy()).T,
    ],
)
def test_a_tensor_is_read_alone_or_in_a_container(value: Any, tmp_path: Path) -> None:
    saved(tmp_path, value, "temporal")
    found = read_videopatchcore([tmp_path])
    assert list(found) == ["temporal"] and found["temporal"].rows.dtype == np.float32
    np.testing.assert_array_equal(found["temporal"].rows, ROWS)


def test_all_banks_are_found_and_brought_to_the_length_of_our_features(tmp_path: Path) -> None:
    for kind, folder in (("spatial", "l"), ("temporal", "l"), ("highlevel", "g")):
        saved(tmp_path / folder, torch.from_numpy(ROWS), kind)
    found = read_videopatchcore([tmp_path / "l", tmp_path / "g"])
    lengths = {kind: np.linalg.norm(bank.rows, axis=1) for kind, bank in found.items()}
    np.testing.assert_allclose(lengths["spatial"], 1, atol=1e-6)
    np.testing.assert_allclose(lengths["highlevel"], 1, atol=1e-6)
    np.testing.assert_array_equal(found["temporal"].rows, ROWS)
    np.testing.assert_allclose(found["spatial"].rows, ROWS / np.linalg.norm(ROWS, axis=1)[:, None], rtol=1e-5)


def test_two_banks_of_a_kind_are_one_too_many(tmp_path: Path) -> None:
    path = saved(tmp_path, torch.from_numpy(ROWS))
    path.with_name("spatial_memory_bank_0.25.pt").write_bytes(path.read_bytes())
    with pytest.raises(ForeignMemoryError, match=r"0\.05\.pt, .*0\.25\.pt: two spatial banks"):
        read_videopatchcore([tmp_path])


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    saved(tmp_path, {"bank": torch.from_numpy(ROWS), "more": Runs(trace)})
    with pytest.raises(ForeignMemoryError, match="not loaded"):
        read_videopatchcore([tmp_path])
    assert not trace.exists()


def loop() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"bank": torch.ones(2, 2), "epoch": 3}, "holds int 'epoch' beside tensors"),
        ("text", "holds str"),
        (torch.nn.Linear(2, 2), "not loaded"),
        ([torch.ones(2, 2), torch.ones(2, 2)], "2 memory banks"),
        ({}, "0 memory banks"),
        (loop(), "0 memory banks"),
        (torch.tensor([[1.0, np.nan]]), "not all numbers are finite"),
        (torch.tensor([[1.0, np.inf]]), "not all numbers are finite"),
        (torch.tensor([[1.0, 2 * LARGEST]]), "not all numbers are finite"),
        (torch.ones(3), r"shape \(3,\)"),
        (torch.ones(2, 3, 4), r"shape \(2, 3, 4\)"),
        (torch.ones(0, 4), r"shape \(0, 4\)"),
        (torch.ones(2, 2, dtype=torch.int64), "floating-point"),
        (torch.ones(2, 2, dtype=torch.complex64), "floating-point"),
        (torch.eye(2).to_sparse(), "dense"),
        (torch.ones(1).expand(2**20, 2**12), "1048576 x 4096 numbers"),
    ],
)  # fmt: skip
def test_anything_but_one_bank_of_finite_numbers_is_refused(value: Any, word: str, tmp_path: Path) -> None:
    path = saved(tmp_path, value)
    with pytest.raises(ForeignMemoryError, match=word) as refusal:
        read_videopatchcore([tmp_path])
    assert str(path) in str(refusal.value) and str(refusal.value).isprintable()


def test_signed_differences_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, torch.tensor([[0.1, -0.2]]), "temporal")
    with pytest.raises(ForeignMemoryError, match="signed differences.*--banks spatial"):
        read_videopatchcore([tmp_path])


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_file_is_refused(part: float, tmp_path: Path) -> None:
    path = saved(tmp_path, torch.from_numpy(ROWS))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ForeignMemoryError, match="damaged"):
        read_videopatchcore([tmp_path])


def test_a_file_that_unpacks_to_more_than_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, torch.from_numpy(ROWS))
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
        archive.writestr("archive/data/9", bytes(2**21))
    path.write_bytes(packed.getvalue())
    monkeypatch.setattr("edge_vad.converters.imports.MAX_BYTES", 2**20)
    with pytest.raises(ForeignMemoryError, match="unpacks to"):
        read_videopatchcore([tmp_path])


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    pipe = tmp_path / "spatial_memory_bank_0.05.pt"
    os.mkfifo(pipe)
    with pytest.raises(ForeignMemoryError, match="not a regular file"):
        read_videopatchcore([tmp_path])
    pipe.unlink()
    with pipe.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(ForeignMemoryError, match=f"at most {MAX_BYTES}"):
        read_videopatchcore([tmp_path])
    with pytest.raises(ForeignMemoryError, match="cannot be read"):
        read_anomalib(tmp_path / "missing.onnx")


# anomalib


def exported(path: Path, *weights: Any) -> Path:
    """A graph that subtracts its memory, as an exported PatchCore searches it."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "score")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["score"])], "g", values[:1], values[1:], weights)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_the_initialiser_of_an_onnx_file_is_read(kind: Any, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((3, 3), np.float32), "model.feature_extractor.weight")
    path = exported(tmp_path / "model.onnx", weight, numpy_helper.from_array(ROWS.astype(kind), "model.memory_bank"))
    found = read_anomalib(path)
    np.testing.assert_allclose(found["spatial"].rows, ROWS / np.linalg.norm(ROWS, axis=1)[:, None], rtol=2e-3)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
@pytest.mark.parametrize("key", ["memory_bank", "model.memory_bank"])
def test_the_memory_of_a_state_dict_is_read(key: str, wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    torch.save(wrap({"model.weight": torch.ones(2), key: torch.from_numpy(ROWS)}), tmp_path / "model.pt")
    assert read_anomalib(tmp_path / "model.pt")["spatial"].rows.shape == ROWS.shape


def external() -> Any:
    tensor = numpy_helper.from_array(ROWS, "memory_bank")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def short() -> Any:
    tensor = numpy_helper.from_array(ROWS, "memory_bank")
    tensor.raw_data = tensor.raw_data[:-4]
    return tensor


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        ([], "0 initialisers"),
        ([numpy_helper.from_array(ROWS, name) for name in ("a.memory_bank", "b.memory_bank")], "2 initialisers"),
        ([external()], "another file"),
        ([short()], "damaged"),
        ([numpy_helper.from_array(ROWS.astype(np.int64), "memory_bank")], "not floating-point"),
        ([numpy_helper.from_array(ROWS * np.nan, "memory_bank")], "finite"),
        ([numpy_helper.from_array(ROWS.astype(np.float64) * 1e300, "memory_bank")], "finite"),
        ([numpy_helper.from_array(ROWS[None], "memory_bank")], "shape"),
    ],
)
def test_an_onnx_file_without_one_sound_memory_is_refused(weights: list[Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(ForeignMemoryError, match=word):
        read_anomalib(exported(tmp_path / "model.onnx", *weights))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ForeignMemoryError, match="not a valid ONNX file"):
        read_anomalib(tmp_path / "model.onnx")


# Into the memory


def memory_of(rows: np.ndarray, n_parts: int, name: str = "spatial") -> Memory:
    lengths = [len(part) for part in np.array_split(rows, n_parts)]
    return Memory([], [], {name: rows, "velocity": rows}, {name: lengths, "velocity": lengths})


def features(seed: int, n: int = 200) -> np.ndarray:
    """Rows of length 1 in five clusters that do not depend on the seed."""
    centres = np.random.default_rng(9).uniform(0, 1, (5, 12))
    generator = np.random.default_rng(seed)
    rows = centres[generator.integers(0, 5, n)] + generator.normal(0, 0.05, (n, 12))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", ["spatial", "object_spatial"])
def test_imported_rows_take_the_place_of_the_footages(name: str) -> None:
    memory = memory_of(features(1), 4, name)
    found = replaced(memory, {"spatial": Imported(features(2), Path("bank.pt"))})
    np.testing.assert_array_equal(found.rows[name], features(2))
    assert sum(found.lengths[name]) == 0  # of no part: every one is scored against all of them
    np.testing.assert_array_equal(found.rows["velocity"], features(1))
    assert list(found.lengths["velocity"]) == [50] * 4
    assert replaced(memory, {}).rows == memory.rows


def test_features_that_are_not_quite_the_same_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rows = features(1)
    noisy = features(2) + np.random.default_rng(5).normal(0, 0.08, rows.shape)
    for bank, warned in ((features(2), False), (noisy.astype(np.float32), True)):
        caplog.clear()
        check_alike("spatial", Imported(bank, Path("bank.pt")), rows, [50] * 4)
        assert ("fit the footage badly" in caplog.text) is warned


def test_copies_of_the_footages_rows_belong_to_their_part() -> None:
    rows = features(1)
    theirs = np.concatenate([features(2, 3), rows[150:152], features(3, 3), rows[:1]])
    found = replaced(memory_of(rows, 4), {"spatial": Imported(theirs, Path("bank.pt"))})
    assert found.lengths["spatial"] == [1, 0, 0, 2]
    np.testing.assert_array_equal(found.rows["spatial"][:3], np.concatenate([rows[:1], rows[150:152]]))
    np.testing.assert_array_equal(found.rows["spatial"][3:], np.concatenate([features(2, 3), features(3, 3)]))


def test_features_of_something_else_are_not_alike() -> None:
    rows, lengths = features(1), [50] * 4
    check_alike("spatial", Imported(features(2), Path("bank.pt")), rows, lengths)
    foreign = np.random.default_rng(3).uniform(0, 1, (200, 12)).astype(np.float32)
    for other in (features(2)[:, ::-1], foreign / np.linalg.norm(foreign, axis=1, keepdims=True), 10 * features(2)):
        with pytest.raises(ForeignMemoryError, match=r"bank\.pt: the footage lies .* over .*: see the encoder"):
            check_alike("spatial", Imported(np.ascontiguousarray(other), Path("bank.pt")), rows, lengths)
    with pytest.raises(ForeignMemoryError, match="too little footage"):
        check_alike("spatial", Imported(features(2), Path("bank.pt")), rows, [200])


@pytest.mark.parametrize("scale", [0.6, 2.0])
def test_rows_of_another_length_are_not_alike_where_lengths_say_something(scale: float) -> None:
    rows = (features(1) * np.random.default_rng(0).uniform(0.8, 1.2, (200, 1))).astype(np.float32)
    bank = Imported(np.concatenate([rows[::9], rows[::9] * scale, rows[::9] * scale]), Path("bank.pt"))
    check_alike("spatial", bank, rows, [50] * 4)
    for name in ("temporal", "object_temporal"):
        with pytest.raises(ForeignMemoryError, match="another scale"):
            check_alike(name, bank, rows, [50] * 4)


def test_a_further_coreset_keeps_a_part_that_covers_all() -> None:
    kept = thinned({"spatial": Imported(features(1), Path("bank.pt"))}, 0.05)["spatial"].rows
    assert len(kept) == 10
    gaps = np.linalg.norm(features(1)[:, None] - kept[None], axis=2).min(axis=1)
    assert gaps.max() < 0.5  # every cluster has a row
