"""The builders: valid manifests, by Kubernetes' own schemas, and the coordinator's configuration to the letter."""

from __future__ import annotations

import json
from dataclasses import dataclass

import kubernetes_validate
import pytest

from collective_operator.api import CollectiveTask, parse_task, rules
from collective_operator.desired import Endpoint, Platform, desired_children, names
from collective_operator.desired.config_map import coordinator_config
from collective_operator.desired.credentials import credentials

from .world import PLATFORM, manifest

FULL = manifest(
    model={"name": "M", "parameters": {"alpha": 1}},
    dataLoader={"name": "D", "parameters": {"skew": 0.5}},
    seed=7,
    strategy={"vote": {"threshold": 0.6}},
    learners={
        "count": 2,
        "location": "s3://b/{index}-of-{count}",
        "imports": ["a.b"],
        "codeFrom": {"configMapRef": {"name": "my-models"}},
        "storage": {"size": "2Gi", "storageClassName": "local"},
        "gpus": {"count": 2},
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
    },
    coordinator={"resources": {"limits": {"memory": "64Mi"}}, "storage": {"size": "5Gi", "storageClassName": "fast"}},
    policy={"minLearners": 1, "roundTimeoutSeconds": 60},
    result={"formats": ["onnx"]},
)


@pytest.mark.parametrize("task", [manifest(), FULL], ids=["small", "full"])
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_children_are_valid(task: dict[str, object], version: str) -> None:
    children = list(desired_children(parse_task(task), PLATFORM))
    assert len(children) == (10 if task is FULL else 8)
    for child in children:
        built = child.build()
        kubernetes_validate.validate(built, version, strict=True)
        assert (built["kind"], built["metadata"]["name"]) == (child.kind, child.name)
        assert built["metadata"]["labels"]["collectivelearning.dev/task"] == "digits"
        assert built == child.build(), "twice the same"


def test_the_configuration_to_the_letter() -> None:
    config = coordinator_config(parse_task(FULL), PLATFORM)
    assert config == {
        "version": 1,
        "task": {"namespace": "default", "name": "digits", "uid": "task-uid"},
        "model": {"name": "M", "parameters": {"alpha": 1}},
        "dataLoader": {"name": "D", "parameters": {"skew": 0.5}},
        "rounds": 20,
        "seed": 7,
        "strategy": {"type": "Vote", "vote": {"threshold": 0.6}},
        "learners": [
            {
                "name": f"learner-{index}",
                "location": f"s3://b/{index}-of-2",
                "address": f"digits-learner-{index}.digits-learners.default.svc:9995",
            }
            for index in range(2)
        ],
        "policy": {"minLearners": 1, "roundTimeoutSeconds": 60, "preRunningDeadlineSeconds": 900},
        "result": {"formats": ["onnx"]},
    }
    small = coordinator_config(parse_task(manifest()), PLATFORM)
    assert small["policy"]["minLearners"] == 2
    assert small["strategy"] == {"type": "Vote", "vote": {"threshold": 0.5}}
    assert small["learners"][1]["location"] == "1/2"


def test_every_name_of_the_longest_task_fits() -> None:
    """Labels and the names of hosts, 63; what a resolver makes of a name that it completes, 253."""
    task = manifest(learners={"count": 256, "storage": {}}, queueName="q" * 63, tls={"mode": "Mutual"})
    task["metadata"] |= {"name": "t" * rules.NAME_LIMIT, "namespace": "n" * 63}
    parsed = parse_task(task)
    built = [child.build() for child in desired_children(parsed, PLATFORM)]
    keys = list(credentials(parsed, PLATFORM))
    secrets = [metadata for key in keys for metadata in (key.metadata, key.authority)]
    for metadata in (*secrets, *(child["metadata"] for child in built)):
        assert len(metadata["name"]) <= 63, "a host's, a label's and a volume's"
        assert all(len(value) <= 63 for value in metadata["labels"].values())
    (coordinator,) = [pod for pod in built if pod["metadata"]["name"].endswith("-coordinator") and pod["kind"] == "Pod"]
    (domain,) = [
        argument.removeprefix("--domain=")
        for argument in coordinator["spec"]["containers"][0]["args"]
        if argument.startswith("--domain=")
    ]
    certified = {key.pod: key.name for key in keys}
    for index in range(256):
        pod = names.learner(parsed.name, index)
        host = PLATFORM.learner_endpoint(parsed, index).host
        assert certified[pod] == host
        dialled = host.removesuffix(f".{domain}")
        assert dialled == f"{pod}.{names.learners(parsed.name)}"
        assert len(f"{dialled}.{domain}.cluster.local") <= 253 < len(f"{host}.{domain}.cluster.local")


def test_resources_never_contradict_themselves() -> None:
    *_, coordinator = desired_children(parse_task(FULL), PLATFORM)
    resources = coordinator.build()["spec"]["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}


def test_a_laptop_has_ports_of_its_own() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Laptop(Platform):
        def learner_endpoint(self, task: CollectiveTask, index: int) -> Endpoint:
            return Endpoint(host="127.0.0.1", port=5000 + index, metrics_port=6000 + index)

    laptop = Laptop(learner_image="l", coordinator_image="c", coordinator_port=7000, secured=False)
    built = {(child.kind, child.name): child.build() for child in desired_children(parse_task(manifest()), laptop)}
    container = built["Pod", "digits-learner-1"]["spec"]["containers"][0]
    assert container["args"] == ["--port=5001", "--metrics-port=6001"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 6001}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 6001}
    assert "--port=7000" in built["Pod", "digits-coordinator"]["spec"]["containers"][0]["args"]
    config = built["ConfigMap", "digits-coordinator"]
    assert json.loads(config["data"]["coordinator.json"])["learners"][1]["address"] == "127.0.0.1:5001"


def test_modules_of_a_config_map_are_mounted_to_be_read_and_named_on_the_command_line() -> None:
    learner = {child.name: child.build() for child in desired_children(parse_task(FULL), PLATFORM)}["digits-learner-1"]
    (container,) = learner["spec"]["containers"]
    assert container["args"][2:5] == [
        "--import=a.b",
        "--code=/opt/collective/code",
        "--state-dir=/var/lib/collective-learner/digits-learner-1",
    ]
    assert {"name": "code", "mountPath": "/opt/collective/code", "readOnly": True} in container["volumeMounts"]
    assert {"name": "code", "configMap": {"name": "my-models"}} in learner["spec"]["volumes"]
    plain = {child.name: child.build() for child in desired_children(parse_task(manifest()), PLATFORM)}
    assert "code" not in str(plain["digits-learner-1"]["spec"])


def test_each_learner_has_a_volume_of_its_own_where_the_task_says_so() -> None:
    children = [child.build() for child in desired_children(parse_task(FULL), PLATFORM)]
    claims = {each["metadata"]["name"]: each for each in children if each["kind"] == "PersistentVolumeClaim"}
    assert list(claims) == ["digits-coordinator", "digits-learner-0", "digits-learner-1"]
    assert claims["digits-learner-1"]["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
        "storageClassName": "local",
    }
    pods = {each["metadata"]["name"]: each["spec"] for each in children if each["kind"] == "Pod"}
    (container,) = pods["digits-learner-1"]["containers"]
    assert {"name": "state", "mountPath": "/var/lib/collective-learner"} in container["volumeMounts"]
    claim = {"name": "state", "persistentVolumeClaim": {"claimName": "digits-learner-1"}}
    assert claim in pods["digits-learner-1"]["volumes"]
    plain = {child.name: child.build() for child in desired_children(parse_task(manifest()), PLATFORM)}
    assert "state" not in str(plain["digits-learner-1"]["spec"])


def test_learners_with_gpus_know_how_many_and_have_room_for_what_gpus_share() -> None:
    learner = {child.name: child.build() for child in desired_children(parse_task(FULL), PLATFORM)}["digits-learner-1"]
    (container,) = learner["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert {"name": "COLLECTIVE_GPUS", "value": "2"} in container["env"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory"}} in learner["spec"]["volumes"]
    plain = {child.name: child.build() for child in desired_children(parse_task(manifest()), PLATFORM)}
    assert "COLLECTIVE_GPUS" not in str(plain["digits-learner-1"])
    assert "shm" not in str(plain["digits-learner-1"]["spec"])
