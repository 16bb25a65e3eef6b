"""What an API server lets somebody write, and nobody may suffer from: neither others, nor who wrote it unawares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .control_plane import eventually
from .playground import Namespace, Operator, manifest

DEPTH = 9_900
"""Of ten thousand that an API server takes."""


@pytest.mark.parametrize("said", ["{no JSON", "[1]", "[" * 200_000])
def test_another_operators_notes_on_a_task_are_not_read(namespace: Namespace, operator: Operator, said: str) -> None:
    """Where the framework keeps its own, if it is asked to: in a manifest that has been exported, for one."""
    notes = {"kopf.zalando.org/last-handled-configuration": said, "kopf.zalando.org/CollectiveTask": said[:9]}
    finalizers = ["kopf.zalando.org/KopfFinalizerMarker"]
    task = {**manifest(), "metadata": {"name": "digits", "annotations": notes, "finalizers": finalizers}}
    plane, begin = namespace.plane, namespace.plane.audited()
    plane.request("POST", namespace.tasks, task)
    try:
        namespace.await_pods(3)
        asked = plane.requests_of("kopf", begin=begin, namespace=namespace.name)
        assert asked == [], "the finalizer is another's"
    finally:
        patch = {"metadata": {"finalizers": None}}
        plane.request("PATCH", f"{namespace.tasks}/digits", patch, kind="application/merge-patch+json")


def test_a_task_nested_to_the_limit_is_refused_and_others_are_served(
    namespace: Namespace, operator: Operator, tmp_path: Path
) -> None:
    text = json.dumps(manifest("deep", model={"name": "SKLEARN_DIGITS", "parameters": {"a": "here"}}))
    file = tmp_path / "deep.json"
    file.write_text(text.replace('"here"', "[" * DEPTH + "]" * DEPTH))
    kubectl = namespace.plane.kubectl
    kubectl("create", "--raw", namespace.tasks, "-f", str(file))
    why = 'jsonpath={.status.conditions[?(@.type=="Accepted")].message}'
    try:
        said = eventually(
            lambda: kubectl("-n", namespace.name, "get", "collectivetask", "deep", "-o", why).stdout,
            what="what is wrong with it",
        )
        assert said.startswith("spec.model.parameters.a[0][0]")
        assert said.endswith("...: must have no more than 100 lists and mappings in one another")
        namespace.apply(manifest("shallow"))
        namespace.await_pods(3)
        # Whoever comes next finds it in a listing, and has to read that, too.
        operator.kill()
        operator.start()
        before = namespace.uid("shallow-learner-1")
        namespace.plane.request("DELETE", f"{namespace.core}/pods/shallow-learner-1")
        namespace.await_another("shallow-learner-1", str(before))
        done = subprocess.run(
            [sys.executable, "-m", "collective_operator", "list", "-n", namespace.name],
            env={**os.environ, "KUBECONFIG": str(namespace.plane.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 and "deep" in done.stdout, done.stderr
    finally:
        # Python could not read what comes back of it here.
        kubectl("-n", namespace.name, "delete", "collectivetask", "deep")
