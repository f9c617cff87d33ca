"""Memory banks: nearest neighbours of features among the features of normal footage, one file each."""

from edge_vad.banks.base import Bank, open_bank

__all__ = ["Bank", "open_bank"]
