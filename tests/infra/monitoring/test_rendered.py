"""Rendered files are equal to the golden files, and Grafana's own types can read them.

After an intended change: ATLAS_GOLDEN=write .venv/bin/pytest tests/infra/monitoring/test_rendered.py
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from infra.monitoring.dashboards import SOURCE, dashboards
from tests.infra.monitoring.rendered import panels, rendered

GOLDEN = Path(__file__).parent / "golden"
UNITS = {"none", "short", "s", "percentunit", "reqps", "cps"}
"""Units from Grafana's list."""


def test_golden_files_are_those_of_what_is_rendered() -> None:
    if os.environ.get("ATLAS_GOLDEN") == "write":
        for name, text in rendered().items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text)
    files = {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file()}
    assert files == rendered().keys()


@pytest.mark.parametrize("name", rendered())
def test_text_is_the_golden_file(name: str) -> None:
    assert rendered()[name] == (GOLDEN / name).read_text()


@pytest.mark.parametrize("file", dashboards())
def test_dashboard_survives_a_round_trip_through_grafanas_types(file: str) -> None:
    register_default_plugins()
    document = json.loads(dashboards()[file])
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
    assert again == document


@pytest.mark.parametrize(
    ("file", "panel"), panels(), ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_panel_says_what_it_shows_and_in_which_unit(file: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": SOURCE.uid}
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(set(references)) == len(references)
    assert all(target["expr"] for target in panel["targets"])
    # Grafana's default thresholds make every number red from 80 on.
    assert (
        panel["type"] != "stat" or panel["fieldConfig"]["defaults"].get("thresholds") or "textMode" in panel["options"]
    )


@pytest.mark.parametrize("file", dashboards())
def test_panels_have_names_and_places_of_their_own(file: str) -> None:
    own = [panel for name, panel in panels() if name == file]
    assert max(Counter(panel["title"] for panel in own).values()) == 1
    assert [panel["id"] for panel in own] == list(range(1, len(own) + 1))
    cells = [
        (panel["gridPos"]["x"] + column, panel["gridPos"]["y"] + row)
        for panel in own
        for column in range(panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["h"])
    ]
    assert max(Counter(cells).values()) == 1
    assert max(x for x, _ in cells) < 24


def test_dashboards_have_fixed_ids_which_links_may_use() -> None:
    found = [json.loads(text)["uid"] for text in dashboards().values()]
    assert found == ["atlas-service", "atlas-model", "atlas-infrastructure"]


def test_grafana_reads_its_dashboards_where_they_are_put_and_its_data_where_they_say() -> None:
    files = {name: yaml.safe_load(text) for name, text in rendered().items() if name.startswith("grafana/provisioning")}
    (source,) = files["grafana/provisioning/datasources/prometheus.yml"]["datasources"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://10.20.0.10:9090")
    (provider,) = files["grafana/provisioning/dashboards/atlas.yml"]["providers"]
    assert provider["options"]["path"] == "/etc/atlas/current/dashboards"
    assert all(document["apiVersion"] == 1 for document in files.values())
