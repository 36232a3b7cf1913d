"""The order of the Makefile's steps."""

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def test_up_looks_at_the_ports_before_the_pipeline_runs() -> None:
    steps = subprocess.run(
        ["make", "--dry-run", "up"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    order = [steps.index(step) for step in ("atlas check --stack local", "dvc repro", "atlas up --stack local")]
    assert order == sorted(order)
