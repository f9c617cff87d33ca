"""Data leaves the device, and the host waits for it, in one file only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from edge_vad import tensors

FILES = sorted(path for path in Path(str(tensors.__file__)).parent.glob("*.py") if path.name != "transfer.py")
TO_THE_HOST = {"cpu", "item", "tolist", "numpy", "to", "synchronize", "nonzero", "unique", "masked_select", "argwhere"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_other_file_moves_data_to_the_host(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        types = {"torch.uint8", "torch.int16"}
        allowed = node.func.attr == "to" and all(ast.unparse(argument) in types for argument in node.args)
        assert node.func.attr not in TO_THE_HOST or allowed, f"{path.name}: {ast.unparse(node)}"
