"""Bank rows at rest."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad import vectors
from edge_vad.vectors import VECTOR_TYPES, Stored, blocks, compress, expand

ROWS = np.random.default_rng(0).normal(0, [0.1, 1, 10, 0], (200, 4)).astype(np.float32)


def test_fp16_keeps_three_digits() -> None:
    np.testing.assert_allclose(expand(compress(ROWS, "fp16")), ROWS, rtol=1e-3, atol=1e-6)


def test_int8_is_off_by_half_a_step_of_each_dimension_at_most() -> None:
    arrays = compress(ROWS, "int8")
    assert arrays["rows"].dtype == np.int8
    step = (ROWS.max(axis=0) - ROWS.min(axis=0)) / 254
    assert np.all(np.abs(expand(arrays) - ROWS) <= 0.501 * step + 1e-6)


def test_product_quantisation_names_four_numbers_with_a_byte_and_stays_near() -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 1, (50, 10)).astype(np.float32)
    rows = (centres[generator.integers(0, 50, 3000)] + generator.normal(0, 0.1, (3000, 10))).astype(np.float32)
    arrays = compress(rows, "pq")
    assert arrays["rows"].shape == (3000, 3) and arrays["rows"].dtype == np.uint8
    assert (
        np.linalg.norm(expand(arrays) - rows, axis=1).mean() < 0.1 * np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    )
    assert all(np.array_equal(arrays[name], again) for name, again in compress(rows.copy(), "pq").items())


@pytest.mark.parametrize("kind", VECTOR_TYPES)
def test_rows_are_unpacked_where_they_are_asked_for(kind: str) -> None:
    stored, rows = Stored(compress(ROWS, kind)), expand(compress(ROWS, kind))  # type: ignore[arg-type]
    assert stored.shape == ROWS.shape and len(stored) == len(ROWS)
    assert np.array_equal(stored[50:90], rows[50:90])
    ids = np.array([[7, 3], [7, 199]])
    assert np.array_equal(stored[ids], rows[ids])
    assert np.array_equal(np.concatenate(list(blocks(stored))), rows)


def test_rows_that_would_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "MAX_EXPANDED", 2**20)
    with pytest.raises(ValueError, match="more than 1 MB"):
        Stored({"rows": np.zeros((100_000, 1), np.uint8), "codebook": np.zeros((256, 4), np.float32)})


@pytest.mark.parametrize("kind", VECTOR_TYPES)
def test_a_single_row_and_equal_rows_come_back(kind: str) -> None:
    for rows in (ROWS[:1], np.repeat(ROWS[:1], 5, axis=0)):
        found = expand(compress(rows, kind))  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, rows, rtol=1e-3, atol=1e-6)


GOOD, PQ = compress(ROWS, "int8"), compress(ROWS, "pq")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"rows": GOOD["rows"]},
        {"rows": GOOD["rows"], "scale": GOOD["scale"]},
        {**GOOD, "scale": GOOD["scale"][:3]},
        {**GOOD, "offset": GOOD["offset"][None]},
        {**GOOD, "rows": GOOD["rows"][0]},
        {"rows": ROWS},
        {"rows": ROWS.astype(np.float64)},
        {**GOOD, "scale": GOOD["scale"].astype(np.float64)},
        {**GOOD, "offset": GOOD["offset"].astype(np.float16)},
        {**GOOD, "scale": GOOD["scale"] * np.float32("nan")},
        {**GOOD, "offset": GOOD["offset"] + np.float32("inf")},
        {**GOOD, "scale": np.full(4, 1e30, np.float32)},
        {"rows": np.full((3, 4), np.inf, np.float16)},
        {"rows": PQ["rows"]},
        {**PQ, "codebook": PQ["codebook"][:-1]},
        {**PQ, "codebook": np.tile(PQ["codebook"], 2)},
        {**PQ, "codebook": PQ["codebook"].astype(np.float16)},
        {**PQ, "codebook": PQ["codebook"] * np.float32("nan")},
        {**PQ, "codebook": PQ["codebook"][0]},
    ],
)
def test_malformed_arrays_are_a_value_error(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="rows"):
        expand(arrays)
