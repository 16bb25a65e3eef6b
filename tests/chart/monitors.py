"""What the Prometheus Operator's definitions say of the fields that the chart uses; any other field is an error here.

Its definitions are installed by whoever installs it, and are no part of Kubernetes' schemas.
"""

from __future__ import annotations

from typing import Any

import jsonschema

TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DURATION = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
LABEL = {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}


def _closed(*required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def _all(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


SELECTOR = _closed("matchLabels", matchLabels=TEXTS)
RELABELING = _closed(
    "sourceLabels", "targetLabel", sourceLabels=_all(LABEL), targetLabel=LABEL, regex=TEXT, replacement=TEXT
)
ENDPOINT = _closed(
    "port",
    port=TEXT,
    path=TEXT,
    interval=DURATION,
    scrapeTimeout=DURATION,
    honorLabels={"type": "boolean"},
    relabelings=_all(RELABELING),
)
RULE = {
    **_closed("expr", "labels", "annotations", alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS),
}
RULE["properties"]["for"] = DURATION
NAMESPACES = _closed(any={"type": "boolean"}, matchNames=_all(TEXT))
SPECS = {
    "PodMonitor": _closed(
        "selector",
        "podMetricsEndpoints",
        selector=SELECTOR,
        namespaceSelector=NAMESPACES,
        podMetricsEndpoints=_all(ENDPOINT),
    ),
    "ServiceMonitor": _closed("selector", "endpoints", selector=SELECTOR, endpoints=_all(ENDPOINT)),
    "PrometheusRule": _closed("groups", groups=_all(_closed("name", "rules", name=TEXT, rules=_all(RULE)))),
}


def validate(manifest: dict[str, Any]) -> None:
    """Check one object."""
    assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
    jsonschema.validate(manifest["spec"], SPECS[manifest["kind"]])
