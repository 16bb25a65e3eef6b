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

    # What a rule does not have is no less refused, and not dropped and written for ever; and so of the coordinator.
    wrong = [{"to": [{"podSelector": {"matchLabel": {"a": "b"}}}]}]
    namespace.run_pod("digits-coordinator")
    namespace.apply(manifest(learners={**learners, "egress": wrong}, coordinator={"egress": wrong}))
    unknown = 'unknown field "spec.egress[{}].to[0].podSelector.matchLabel"'
    eventually(lambda: unknown.format(1) in namespace.condition("LearnersReady")["message"])
    eventually(lambda: unknown.format(2) in namespace.condition("CoordinatorReady")["message"])
    assert namespace.condition("CoordinatorReady")["status"] == "True"
    assert namespace.plane.get(rules)["spec"] == before
    namespace.apply(manifest(learners=learners, coordinator={"egress": []}))
    eventually(lambda: namespace.condition("CoordinatorReady")["message"] == "digits-coordinator is ready")


def test_rules_that_say_the_same_in_other_words_are_written_once(namespace: Namespace, operator: Operator) -> None:
    said = [
        {"to": [{"podSelector": {"matchLabels": {}}}, {"namespaceSelector": {"matchExpressions": []}}]},
        {"ports": [{"port": 443, "protocol": None}, {"port": None}]},
        {"to": [{"ipBlock": {"cidr": "2001:DB8::/32", "except": []}}], "ports": []},
    ]
    # Not by `kubectl apply`, which takes null for a member that is to go.
    begin = namespace.plane.audited()
    namespace.plane.request("POST", namespace.tasks, manifest(learners={"count": 1, "location": "x", "egress": said}))
    namespace.await_pods(2)

    def written() -> int:
        asked = namespace.plane.requests_of("collective", begin=begin, namespace=namespace.name)
        return asked.count("update networkpolicies")

    rules = f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies/digits-learners"
    namespace.plane.request("PATCH", rules, {"spec": {"ingress": None}}, kind="application/merge-patch+json")
    eventually(lambda: namespace.plane.get(rules)["spec"].get("ingress"), what="the policy, put right")
    for name in namespace.pods():
        namespace.run_pod(name)
    eventually(lambda: namespace.status()["learners"]["ready"] == 1)
    namespace.plane.request("PATCH", rules, {"spec": {"ingress": None}}, kind="application/merge-patch+json")
    eventually(lambda: namespace.plane.get(rules)["spec"].get("ingress"), what="the policy, put right again")
    # The audit log has a request when it has been answered, a moment after what it wrote is there.
    eventually(lambda: written() >= 2, what="both in the audit log")
    assert written() == 2


def test_a_member_that_pods_do_not_have_is_told(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(manifest(learners={"count": 1, "podOverrides": {"spec": {"nodeSelectr": {"gpu": "a100"}}}}))
    found = namespace.await_reason("LearnersReady", "CreateRefused")
    assert 'unknown field "spec.nodeSelectr"' in found["message"]
    assert set(namespace.await_pods(1)) == {"digits-coordinator"}
