"""Documents on the pages: tasks are read as by `collective check`, parts of them within one, others by their schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from collective_operator.api import CollectiveTaskSpec, parse_task
from collective_operator.api.task import Learners

from .pages import ROOT, Block, every_block

YAML = [block for block in every_block() if block.language == "yaml"]
TASK: dict[str, Any] = {
    "apiVersion": "collectivelearning.dev/v1alpha1",
    "kind": "CollectiveTask",
    "metadata": {"name": "task"},
    "spec": {"model": {"name": "M"}, "dataLoader": {"name": "D"}, "rounds": 1, "learners": {"count": 1}},
}


def names(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def judge(found: dict[str, Any], title: str) -> str:
    """Hold a document against what it is for; say what that was."""
    if found.get("kind") == "CollectiveTask":
        parse_task(found)
        return "task"
    if "kind" in found:
        kubernetes_validate.validate(found, "1.34", strict=True)
        return "manifest"
    if title == "values of the chart":
        chart = ROOT / "helm" / "collective-operator"
        schema = json.loads((chart / "values.schema.json").read_text())
        jsonschema.validate(_laid_over(yaml.safe_load((chart / "values.yaml").read_text()), found), schema)
        return "values"
    if set(found) == {"scrape_configs"}:
        return "prometheus"  # tests/cluster/test_discovery.py gives it to Prometheus' own tool
    spec: dict[str, Any] = {**TASK["spec"]}
    for name, part in found.items():
        if name in names(CollectiveTaskSpec):
            spec[name] = {**spec[name], **part} if name == "learners" and "sites" not in part else part
        else:
            assert name in names(Learners), f"{name} is no field of a task"
            spec["learners"] = {**spec["learners"], name: part}
    parse_task({**TASK, "spec": spec})
    return "part"


def title_of(block: Block) -> str:
    first = block.text.splitlines()[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


def _laid_over(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Lay values over a chart's own, as Helm does."""
    nested = {
        name: _laid_over(mine, its)
        for name, mine in values.items()
        if isinstance(mine, dict) and isinstance(its := others.get(name), dict)
    }
    return {**values, **others, **nested}


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_document_is_valid_as_what_it_is(block: Block) -> None:
    for found in yaml.safe_load_all(block.text):
        assert judge(found, title_of(block))


def test_wrong_ones_are_found() -> None:
    for wrong in ({**TASK, "spec": {"rounds": 0}}, {"strategy": {"type": "FedAverage"}}, {"lerners": {"count": 3}}):
        with pytest.raises((Exception, AssertionError)):
            judge(wrong, "")
    with pytest.raises(jsonschema.ValidationError):
        judge({"imag": {}}, "values of the chart")
    with pytest.raises(kubernetes_validate.ValidationError):
        judge({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "x"}, "spec": {"mode": 1}}, "")
