"""Exact nearest neighbours among rows that stay as they are stored, unpacked block by block while they are searched."""

from __future__ import annotations

from edge_vad.banks.base import Bank
from edge_vad.banks.exact import ExactBank
from edge_vad.types import Float32
from edge_vad.vectors import Stored


class CompactBank(ExactBank, Bank):
    """`ExactBank` in a half (fp16), a quarter (int8) or a sixteenth (pq) of the memory; slower by the unpacking."""

    @classmethod
    def over(cls, rows: Float32 | Stored) -> CompactBank:
        bank = cls.__new__(cls)
        bank._hold(rows)
        return bank
