"""The children, as an API server and a strict cluster's admission take them."""

from __future__ import annotations

import copy

from .control_plane import eventually
from .playground import Namespace, Operator, manifest
from .tasks import EVERYTHING


def test_restricted_pod_security_admits_the_pods(namespace: Namespace, operator: Operator) -> None:
    namespace.plane.request(
        "PATCH",
        f"/api/v1/namespaces/{namespace.name}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        kind="application/merge-patch+json",
    )
    spec = copy.deepcopy(EVERYTHING)
    spec["learners"]["count"] = spec["policy"]["minLearners"] = 1
    spec["policy"]["activeDeadlineSeconds"] = spec["policy"]["preRunningDeadlineSeconds"] = 600
    namespace.config_map("my-models", {"a.py": ""})
    namespace.apply(manifest("strict", **spec))
    pods = namespace.await_pods(2)
    for pod in pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not any("serviceAccountToken" in str(volume) for volume in pod["spec"]["volumes"])
        assert not any(volume["name"].startswith("kube-api-access") for volume in pod["spec"]["volumes"])
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("CollectiveTask", True, True)
    learner = pods["strict-learner-0"]["spec"]["containers"][0]
    assert learner["image"] == "me/learner:1"
    assert learner["resources"]["limits"] == {"cpu": "2500m", "nvidia.com/gpu": "1"}
    assert learner["args"][:5] == [
        "--port=9995",
        "--metrics-port=9091",
        "--import=a",
        "--import=b.c",
        "--code=/opt/collective/code",
    ]
    assert pods["strict-coordinator"]["spec"]["containers"][0]["image"] == "operator:test"
    for name, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        assert "--tls-key=/etc/collective/tls/tls.key" in container["args"]
        (secret,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert (secret["secretName"], secret["defaultMode"]) == (f"{name}-tls", 0o440)


def test_a_rule_that_kubernetes_refuses_is_told_and_nobody_runs_unguarded(
    namespace: Namespace, operator: Operator
) -> None:
    learners = {"count": 1, "location": "x", "egress": [{"to": [{"ipBlock": {"cidr": "everywhere"}}]}]}
    namespace.apply(manifest(learners=learners))
    found = namespace.await_reason("LearnersReady", "CreateRefused")
    assert "spec.egress[1].to[0].ipBlock.cidr: Invalid value" in found["message"]
    assert set(namespace.await_pods(1)) == {"digits-coordinator"}
    learners["egress"] = [{"ports": [{"port": 443}]}]
    namespace.apply(manifest(learners=learners))
    namespace.await_pods(2)

    # One that runs keeps the rules that it has, until there are better ones.
    rules = f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies/digits-learners"
    before = namespace.plane.get(rules)["spec"]
    namespace.apply(manifest(learners={**learners, "egress": [{"ports": [{"port": 99999}]}]}))
    eventually(lambda: "spec.egress[1].ports[0].port" in namespace.condition("LearnersReady")["message"])
    assert namespace.plane.get(rules)["spec"] == before
    assert len(namespace.pods()) == 2


def test_a_member_that_pods_do_not_have_is_told(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(manifest(learners={"count": 1, "podOverrides": {"spec": {"nodeSelectr": {"gpu": "a100"}}}}))
    found = namespace.await_reason("LearnersReady", "CreateRefused")
    assert 'unknown field "spec.nodeSelectr"' in found["message"]
    assert set(namespace.await_pods(1)) == {"digits-coordinator"}
