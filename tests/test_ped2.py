"""UCSD Ped2 with all defaults: the accuracy that the README states. Needs the data beside the project's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_vad.cli import main

PED2 = Path(__file__).resolve().parents[2] / "shared" / "data" / "ped2"
pytestmark = pytest.mark.skipif(not PED2.is_dir(), reason=f"UCSD Ped2 is not at {PED2}")


@pytest.fixture(scope="module")
def result(lite0: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Build on the training clips, evaluate on the test clips with the official labels."""
    folder = tmp_path_factory.mktemp("ped2")
    bundle, report = folder / "ped2.evb", folder / "report"
    assert main(["build", "--normal", str(PED2), "--out", str(bundle), "--encoder", str(lite0)]) == 0
    assert main(["evaluate", "--bundle", str(bundle), "--dataset", "ped2", str(PED2), "--report", str(report)]) == 0
    loaded: dict[str, Any] = json.loads((report / "result.json").read_text())
    return loaded


def test_the_causal_score_separates_normal_from_anomalous_frames(result: dict[str, Any]) -> None:
    assert result["labels"] == "official" and result["n_frames"] == 2010
    assert result["causal"]["frame_auc"]["micro"] >= 0.92


def test_false_alarms_on_normal_frames_are_rare(result: dict[str, Any]) -> None:
    assert result["false_alarms"]["fpr_on_normal_test_frames"] <= 0.05
    assert result["false_alarms"]["detection_rate"] > 0.3  # a detector that never fires has no false alarms either


def test_the_bundle_is_small(result: dict[str, Any]) -> None:
    assert result["bundle_bytes"] <= 5e6


def test_what_is_found_is_where_the_anomaly_is(result: dict[str, Any]) -> None:
    assert result["localisation"]["inside_on_true_positives"] > 5 * result["localisation"]["chance"]
