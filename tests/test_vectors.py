"""Bank rows at rest."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad.vectors import VECTOR_TYPES, compress, expand

ROWS = np.random.default_rng(0).normal(0, [0.1, 1, 10, 0], (200, 4)).astype(np.float32)


def test_fp16_keeps_three_digits() -> None:
    np.testing.assert_allclose(expand(compress(ROWS, "fp16")), ROWS, rtol=1e-3, atol=1e-6)


def test_int8_is_off_by_half_a_step_of_each_dimension_at_most() -> None:
    arrays = compress(ROWS, "int8")
    assert arrays["rows"].dtype == np.int8
    step = (ROWS.max(axis=0) - ROWS.min(axis=0)) / 254
    assert np.all(np.abs(expand(arrays) - ROWS) <= 0.501 * step + 1e-6)


@pytest.mark.parametrize("kind", VECTOR_TYPES)
def test_a_single_row_and_equal_rows_come_back(kind: str) -> None:
    for rows in (ROWS[:1], np.repeat(ROWS[:1], 5, axis=0)):
        found = expand(compress(rows, kind))  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, rows, rtol=1e-3, atol=1e-6)


GOOD = compress(ROWS, "int8")


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
    ],
)
def test_malformed_arrays_are_a_value_error(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="rows"):
        expand(arrays)
