"""A real control plane for tests: etcd, kube-apiserver and kube-controller-manager, and nothing that runs pods.

The binaries are found where every operator's tests find them.  With kube-controller-manager, ownerReferences are
collected and service accounts made as in production.  Certificates and the service accounts' key are those that
kube-apiserver makes for itself at its start, so that no tool is needed to make any.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..ports import free_port

HOW_TO = (
    "needs kube-apiserver, etcd, kube-controller-manager and kubectl: name their folder in KUBEBUILDER_ASSETS "
    "(setup-envtest use -p path), each one in TEST_ASSET_KUBE_APISERVER etc., or put them in /usr/local/kubebuilder/bin"
)
_BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
_CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "persistentvolumeclaim-protection-controller",
)
TOKEN = "admin-of-a-test"
_PR_SET_PDEATHSIG = 1
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}

T = TypeVar("T")


def find_binaries() -> dict[str, Path] | None:
    """Find all binaries, or None."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS") or "/usr/local/kubebuilder/bin")
    found = {
        name: Path(os.environ.get(f"TEST_ASSET_{name.upper().replace('-', '_')}") or folder / name)
        for name in _BINARIES
    }
    return found if all(path.is_file() for path in found.values()) else None


def eventually(check: Callable[[], T], *, timeout: float = 60, every: float = 0.1, what: str = "") -> T:
    """Call until the answer is true, and return it; the last answer or error stands in the failure."""
    end = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < end:
        try:
            answer = check()
            if answer:
                return answer
            last = answer
        except (AssertionError, KeyError, OSError) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"{what or check} did not come true in {timeout} s; last: {last!r}")


def spawn(command: Sequence[str | Path], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that cannot outlive this one, not even when this one is killed."""
    libc = ctypes.CDLL(None)
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - one call, no locks
            **options,
        )


def end(process: subprocess.Popen[bytes], *, seconds: float = 10) -> None:
    """End a process, by force when it does not go."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ApiError(AssertionError):
    """The API server's refusal."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """A control plane that runs."""

    url: str
    kubeconfig: Path
    kubectl_binary: Path
    tls: ssl.SSLContext
    authority: Path
    """The certificate to trust."""
    audit: Path
    """The audit log: who asked for what, a JSON object a line."""
    start_api_server: Callable[[], subprocess.Popen[bytes]]
    processes: dict[str, subprocess.Popen[bytes]]
    """By the binary's name."""

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """Kill the API server; start it again, on the same data, after the block."""
        running = self.processes["kube-apiserver"]
        running.kill()
        running.wait()
        try:
            yield
        finally:
            self.processes["kube-apiserver"] = self.start_api_server()
            eventually(lambda: self.get("/readyz") == "ok", timeout=90, what="readiness")

    def asked_by(self, account: str) -> list[dict[str, Any]]:
        """What a service account, NAMESPACE:NAME, has asked of the API server so far, as its audit log has it."""
        return [event for event in self.events() if event["user"]["username"] == f"system:serviceaccount:{account}"]

    def kubeconfig_of(self, account: str, path: Path) -> Path:
        """Write a kubeconfig that logs in as an account, NAMESPACE:NAME."""
        namespace, _, name = account.partition(":")
        config = json.loads(self.kubeconfig.read_text())
        token = self.kubectl("-n", namespace, "create", "token", name, "--duration=3h").stdout.strip()
        path.write_text(json.dumps({**config, "users": [{"name": "admin", "user": {"token": token}}]}))
        return path

    def request(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Any:
        """Talk to the API server, as its administrator."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as response:
                raw = response.read()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode()) from None
        except http.client.HTTPException as error:  # half an answer, of one that was killed
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        return json.loads(raw) if raw.startswith(b"{") else raw.decode()

    def get(self, path: str) -> Any:
        """Get an object; None when there is none."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def requests_of(self, agent: str, *, begin: int, namespace: str | None = None) -> list[str]:
        """What somebody has asked since the audit had so many bytes, as ``verb resource``; a watch counts as it begins.

        Parameters
        ----------
        agent
            How the user agent begins.
        begin
            See `audited`.
        namespace
            Only what concerned this one; the empty one: what concerned none, or all.
        """
        return [
            f"{event['verb']} {event['objectRef']['resource']}"
            for event in self.events(begin=begin)
            if event.get("userAgent", "").startswith(agent)
            and "objectRef" in event  # which asking what there is has not
            and namespace in (None, event["objectRef"].get("namespace", ""))
            and event["stage"] == ("ResponseStarted" if event["verb"] == "watch" else "ResponseComplete")
        ]

    def events(self, *, begin: int = 0) -> list[dict[str, Any]]:
        """What the audit log has from a byte on; a line that is being written is none yet."""
        with self.audit.open("rb") as log:
            log.seek(begin)
            return [json.loads(line) for line in log if line.endswith(b"\n")]

    def audited(self) -> int:
        """How long the audit is by now."""
        return self.audit.stat().st_size

    def kubectl(self, *arguments: str, stdin: object = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `stdin` is written as JSON."""
        done = subprocess.run(
            [self.kubectl_binary, "--kubeconfig", self.kubeconfig, *arguments],
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
            input=None if stdin is None else json.dumps(stdin),
            env={**os.environ, "HOME": str(self.kubeconfig.parent)},
        )
        assert not check or done.returncode == 0, done.stderr
        return done


@contextmanager
def control_plane(binaries: dict[str, Path], folder: Path) -> Iterator[ControlPlane]:
    """Start a control plane, and stop it whatever happens."""
    client, peer, secure = free_port(), free_port(), free_port()
    url, certs = f"https://127.0.0.1:{secure}", folder / "certs"
    policy = folder / "audit.json"
    policy.write_text(json.dumps(_AUDIT_POLICY))
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        processes[name] = spawn([binaries[name], *arguments], folder / f"{name}.log")
        return processes[name]

    try:
        start(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        start_api_server = partial(
            start,
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--cert-dir={certs}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={secure}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://localhost/",
            f"--service-account-key-file={certs / 'apiserver.key'}",
            f"--service-account-signing-key-file={certs / 'apiserver.key'}",
            "--enable-priority-and-fairness=false",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={folder / 'audit.log'}",
        )
        start_api_server()
        authority = certs / "apiserver.crt"
        # As a whole: the file is there before its content is.
        tls = eventually(lambda: ssl.create_default_context(cafile=authority), what="the API server's certificate")
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(authority)}}],
                    "users": [{"name": "admin", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                }
            )
        )
        plane = ControlPlane(
            url=url,
            kubeconfig=kubeconfig,
            kubectl_binary=binaries["kubectl"],
            tls=tls,
            authority=authority,
            audit=folder / "audit.log",
            start_api_server=start_api_server,
            processes=processes,
        )
        eventually(lambda: plane.get("/readyz") == "ok", timeout=90, what=f"readiness (see {folder})")
        start(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--use-service-account-credentials=false",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            f"--service-account-private-key-file={certs / 'apiserver.key'}",
            f"--root-ca-file={authority}",
        )
        yield plane
    finally:
        for process in reversed(list(processes.values())):
            end(process)
