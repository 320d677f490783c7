"""Write docs/grafana.json: a Grafana dashboard with a panel for every metric of `partway.live.metric_table`."""

import json
from pathlib import Path
from typing import Any

from partway.live.metric_table import METRICS, Metric

PAGE = Path(__file__).parents[1] / "docs" / "grafana.json"
COLUMNS, WIDTH, HEIGHT = 3, 8, 8
"""Panels in a row, and the size of one in Grafana's grid of 24 columns."""
SOURCE = {"type": "prometheus", "uid": "${source}"}
"""The data source that the user chooses."""


def dashboard() -> dict[str, Any]:
    """The dashboard, to be imported."""
    variable = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}
    return {
        "title": "Partway",
        "uid": "partway",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [_panel(number, metric) for number, metric in enumerate(METRICS)],
    }


def _panel(number: int, metric: Metric) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    legend = f"{{{{{metric.label}}}}}" if metric.label else metric.title
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": metric.title,
        "description": metric.about,
        "datasource": SOURCE,
        "gridPos": {"x": WIDTH * column, "y": HEIGHT * row, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": metric.unit}, "overrides": []},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": metric.query, "legendFormat": legend}],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
