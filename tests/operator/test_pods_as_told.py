"""Sites that differ, pods that are overridden, queues: what a task says of its pods is what they are."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest

from collective_operator.api import TaskInvalid, is_managed_elsewhere, parse_task
from collective_operator.api.overrides import PodOverrides
from collective_operator.desired import desired_children
from collective_operator.desired.config_map import coordinator_config
from collective_operator.desired.overrides import overridden

from .world import PLATFORM, manifest

Manifest = dict[str, Any]

SITES: list[Manifest] = [
    {"name": "hospital-a", "location": "s3://a/scans", "gpus": {"count": 2}},
    {
        "name": "hospital-b",
        "image": "b/learner:2",
        "gpus": {"count": 1, "resource": "nvidia.com/mig-1g.5gb"},
        "resources": {"limits": {"memory": "8Gi"}},
        "podOverrides": {"spec": {"nodeSelector": {"site": "b"}, "runtimeClassName": "kata"}},
    },
    {"name": "laptop", "gpus": {"count": 0}},
]


def pods(**spec: Any) -> dict[str, Manifest]:
    task = parse_task(manifest(**spec))
    built = {child.name: child.build() for child in desired_children(task, PLATFORM) if child.kind == "Pod"}
    for pod in built.values():
        kubernetes_validate.validate(pod, "1.34", strict=True)
    return built


def container(pod: Manifest) -> Manifest:
    return pod["spec"]["containers"][0]


def refused(**spec: Any) -> list[str]:
    with pytest.raises(TaskInvalid) as error:
        parse_task(manifest(**spec))
    return [str(problem) for problem in error.value.problems]


def test_each_site_gets_its_own_and_else_what_all_get() -> None:
    learners = {
        "sites": SITES,
        "location": "/data/{site}/{index}of{count}",
        "gpus": {"count": 1},
        "podOverrides": {"spec": {"nodeSelector": {"pool": "ml"}, "priorityClassName": "research"}},
    }
    made = pods(learners=learners)
    a, b, laptop = (made[f"digits-learner-{index}"] for index in range(3))
    assert container(a)["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert container(b)["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/mig-1g.5gb": 1}
    assert container(laptop)["resources"]["limits"] == {}
    assert [container(pod)["image"] for pod in (a, b)] == [PLATFORM.learner_image, "b/learner:2"]
    assert b["spec"]["nodeSelector"] == {"pool": "ml", "site": "b"}
    assert (a["spec"]["nodeSelector"], b["spec"]["runtimeClassName"]) == ({"pool": "ml"}, "kata")
    assert {pod["spec"]["priorityClassName"] for pod in (a, b, laptop)} == {"research"}
    assert "priorityClassName" not in made["digits-coordinator"]["spec"]
    labels = [pod["metadata"]["labels"]["collectivelearning.dev/site"] for pod in (a, b, laptop)]
    assert labels == ["hospital-a", "hospital-b", "laptop"]
    config = coordinator_config(parse_task(manifest(learners=learners)), PLATFORM)
    locations = [learner["location"] for learner in config["learners"]]
    assert locations == ["s3://a/scans", "/data/hospital-b/1of3", "/data/laptop/2of3"]
    assert config["policy"]["minLearners"] == 3


@pytest.mark.parametrize(
    ("learners", "words"),
    [
        ({}, "spec.learners: {} is not allowed: spec.learners must have either count or sites"),
        ({"count": 2, "sites": SITES}, "spec.learners must have either count or sites"),
        ({"sites": []}, "spec.learners.sites: [] is not allowed"),
        ({"sites": [{"name": "a"}, {"name": "a"}]}, "spec.learners.sites[1].name: 'a' is not allowed: names of sites"),
        ({"sites": [{"name": "A"}]}, "spec.learners.sites[0].name: 'A' is not allowed"),
        ({"sites": [{}]}, "spec.learners.sites[0].name: is required"),
        ({"sites": [{"name": "a", "gpu": 1}]}, "spec.learners.sites[0].gpu: is no field; there are name, location"),
        (
            {"sites": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": 1}}}], "gpus": {"count": 1}},
            "spec.learners.sites[0].resources.limits.nvidia.com/gpu: 1",
        ),
        (
            {"sites": [{"name": "a", "podOverrides": {"spec": {"hostname": "x"}}}]},
            "spec.learners.sites[0].podOverrides.spec.hostname: 'x' is not allowed: the operator names pods",
        ),
    ],
)
def test_sites_that_cannot_be(learners: Manifest, words: str) -> None:
    (problem,) = refused(learners=learners)
    assert words in problem


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"spec": {"restartPolicy": "Never"}}, "podOverrides.spec.restartPolicy: 'Never'"),
        ({"spec": {"automountServiceAccountToken": True}}, "no pod of a task holds a token"),
        ({"spec": {"containers": [{"name": "learner", "command": ["sh"]}]}}, "containers[0].command: ['sh']"),
        ({"spec": {"containers": [{"name": "learner", "image": "x"}]}}, "the image stands in spec.learners.image"),
        ({"spec": {"containers": [{"name": "learner", "resources": {}}]}}, "spec.learners.resources"),
        ({"spec": {"containers": [{"image": "x"}]}}, "containers[0]: {'image': 'x'} is not allowed: must be a mapping"),
        ({"spec": {"containers": {}}}, "podOverrides.spec.containers: {} is not allowed: must be a list"),
        ({"spec": {"volumes": [{"name": "v"}, {"name": "v"}]}}, "volumes[1].name: 'v' is not allowed: is there twice"),
        ({"spec": {"schedulingGates": 5}}, "podOverrides.spec.schedulingGates: 5 is not allowed: must be a list"),
        ({"spec": {"imagePullSecrets": ["x"]}}, "imagePullSecrets[0]: 'x' is not allowed: must be a mapping"),
        ({"spec": {"containers": [{"name": "x", "env": {"A": "b"}}]}}, "containers[0].env: {'A': 'b'} is not allowed"),
        ({"spec": {"initContainers": [{"name": "x", "volumeMounts": [5]}]}}, "must be a mapping with a mountPath"),
        ({"metadata": {"labels": {"collectivelearning.dev/task": "other"}}}, "this prefix are the operator's"),
        ({"metadata": {"labels": {"team": "a b"}}}, "labels.team: 'a b' is not allowed: must be of letters, digits"),
        ({"metadata": {"labels": {"a\nb": "x"}}}, "labels: 'a\\nb' is not allowed: must be a name such as team"),
        ({"metadata": {"annotations": {"a b": "x"}}}, "annotations: 'a b' is not allowed: must be a name such as team"),
        ({"metadata": {"labels": {"team": "x" * 64}}}, "podOverrides.metadata.labels.team"),
        ({"metadata": {"name": "x"}}, "podOverrides.metadata.name: is no field; there are labels, annotations"),
        ({"template": {}}, "podOverrides.template: is no field; there are metadata, spec"),
    ],
)
def test_overrides_that_would_break_what_the_operator_relies_on(overrides: Manifest, words: str) -> None:
    (problem,) = refused(learners={"count": 2, "podOverrides": overrides})
    assert words in problem and problem.startswith("spec.learners.podOverrides")


def test_the_coordinator_s_pod_is_overridden_by_its_own() -> None:
    spec = {"tolerations": [{"key": "spot", "operator": "Exists"}], "containers": [{"name": "sidecar", "image": "s:1"}]}
    made = pods(coordinator={"podOverrides": {"metadata": {"annotations": {"a/b": "c"}}, "spec": spec}})
    pod = made["digits-coordinator"]
    assert [found["name"] for found in pod["spec"]["containers"]] == ["coordinator", "sidecar"]
    assert pod["spec"]["tolerations"] == spec["tolerations"]
    assert pod["metadata"]["annotations"] == {"a/b": "c"}
    assert "tolerations" not in made["digits-learner-0"]["spec"]
    (problem,) = refused(
        coordinator={"podOverrides": {"spec": {"containers": [{"name": "coordinator", "image": "mine"}]}}}
    )
    assert "the coordinator's image is the operator's own" in problem


def test_the_secret_for_results_is_the_coordinators_alone() -> None:
    made = pods(result={"location": "s3://models/digits", "secretRef": {"name": "bucket-keys"}})
    assert container(made["digits-coordinator"])["envFrom"] == [{"secretRef": {"name": "bucket-keys"}}]
    assert "envFrom" not in container(made["digits-learner-0"])
    config = coordinator_config(parse_task(manifest(result={"secretRef": {"name": "bucket-keys"}})), PLATFORM)
    assert config["result"] == {"formats": ["safetensors"]}, "as it was before there were places"


def test_volumes_and_variables_join_those_that_are_there() -> None:
    spec = {
        "volumes": [
            {"name": "scans", "persistentVolumeClaim": {"claimName": "scans"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
        "containers": [
            {
                "name": "learner",
                "env": [{"name": "HF_HOME", "value": "/scans/hf"}],
                "volumeMounts": [{"name": "scans", "mountPath": "/scans", "readOnly": True}],
            }
        ],
        "affinity": {"podAntiAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "data-reader",
        "securityContext": {"fsGroup": 2000},
    }
    pod = pods(learners={"count": 1, "podOverrides": {"spec": spec}})["digits-learner-0"]
    plain = pods(learners={"count": 1})["digits-learner-0"]
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["tmp", "tls", "scans"]
    assert pod["spec"]["volumes"][0]["emptyDir"] == {"sizeLimit": "1Gi"}
    mounts = [mount["mountPath"] for mount in container(plain)["volumeMounts"]]
    assert [mount["mountPath"] for mount in container(pod)["volumeMounts"]] == [*mounts, "/scans"]
    assert container(pod)["env"] == [*container(plain).get("env", ()), {"name": "HF_HOME", "value": "/scans/hf"}]
    assert pod["spec"]["securityContext"] == plain["spec"]["securityContext"] | {"fsGroup": 2000}
    assert container(pod)["command"] == container(plain)["command"]
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_neither_the_pod_below_nor_the_overrides_are_changed() -> None:
    below: Manifest = {"metadata": {"labels": {"a": "1"}}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    said = {"tolerations": [{"key": "k"}], "volumes": [{"name": "w"}, {"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}
    overrides = PodOverrides.model_validate({"metadata": {"labels": {"b": "2"}}, "spec": copy.deepcopy(said)})
    merged = overridden(below, (overrides, overrides))
    assert merged["spec"]["volumes"] == [*reversed(said["volumes"])]
    assert overrides.spec == said
    assert below == {"metadata": {"labels": {"a": "1"}}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}


def test_long_lists_are_laid_over_one_another_item_by_item_and_not_each_by_each() -> None:
    """Thousands of variables took minutes, in which nobody else was served."""
    looks = 0

    class Item(dict[str, Any]):
        def get(self, *arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().get(*arguments)

    def variables(letter: str) -> list[Item]:
        return [Item(name=f"{letter}{number}") for number in range(500)]

    below: Manifest = {"metadata": {}, "spec": {"env": variables("A")}}
    overrides = PodOverrides.model_construct(spec={"env": variables("B")})
    assert len(overridden(below, (overrides,))["spec"]["env"]) == 1000
    assert looks == 1000


def test_lists_whose_items_nobody_has_checked_are_laid_over_one_another_too() -> None:
    """The names of lists that are merged may stand anywhere; Kubernetes says that it knows no such member."""
    all_learners = PodOverrides.model_validate({"spec": {"new": {"env": [1, {"name": 2}]}}})
    site = PodOverrides.model_validate({"spec": {"new": {"env": [{"name": "A"}, "b", {"name": 2}]}}})
    merged = overridden({"metadata": {}, "spec": {}}, (all_learners, site))
    assert merged["spec"]["new"]["env"] == [1, {"name": 2}, {"name": "A"}, "b", {"name": 2}]


def test_a_task_in_a_queue_is_one_group_behind_gates() -> None:
    made = pods(queueName="gpu-queue", learners={"count": 3})
    assert len(made) == 4
    for pod in made.values():
        assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"
        assert pod["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] == "task-uid"
        assert pod["metadata"]["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "4"
        assert pod["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/admission"}]
    assert "schedulingGates" not in pods()["digits-learner-0"]["spec"]


@pytest.mark.parametrize(
    ("spec", "elsewhere"),
    [
        ({}, False),
        ({"managedBy": "collectivelearning.dev/operator"}, False),
        ({"managedBy": "kueue.x-k8s.io/multikueue"}, True),
        ({"managedBy": 3}, False),
        (None, False),
    ],
)
def test_what_another_controller_sees_to(spec: Any, elsewhere: bool) -> None:
    assert is_managed_elsewhere({"spec": spec}) is elsewhere
