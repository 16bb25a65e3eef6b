"""What commands say of kubeconfigs and names that are not as they should be: one line, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from click.testing import CliRunner, Result

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.listing import list_tasks
from collective_operator.commands.status import status

CLUSTER = '{server: "https://127.0.0.1:1"}'
USER = "{token: x}"
PLUGIN = '{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: "{}"}}}}'
WHOLE = f"""\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {CLUSTER}}}]
users: [{{name: u, user: {USER}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""


def listed(path: Path, text: str | bytes) -> Result:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CliRunner().invoke(list_tasks, ["--kubeconfig", str(path)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "of another kind"),
        ("hello", "of another kind"),
        ("[1]", "of another kind"),
        ("a: b: c", "is no YAML: mapping values are not allowed here"),
        (b"\x00\x01", "is no YAML: unacceptable character"),
        (b"\xff\xfe\xfd", "can't decode byte 0xff"),
        (WHOLE.replace("current-context: c", ""), "Expected key current-context"),
        (WHOLE.replace(CLUSTER, "{}"), "'' is no address of an API server"),
        (WHOLE.replace(CLUSTER, "{server: 5}"), "of another kind"),
        (WHOLE.replace(CLUSTER, "{server: nonsense}"), "'nonsense' is no address of an API server"),
        (WHOLE.replace("users: [{", "users: [] #"), "of another kind"),
        (WHOLE.replace(USER, "{tokenFile: /no/such/file}"), "/no/such/file: No such file or directory"),
        (WHOLE.replace(CLUSTER, '{server: "https://x", certificate-authority: /no/ca.crt}'), "/no/ca.crt"),
        (WHOLE.replace(CLUSTER, '{server: "https://x", certificate-authority-data: aGVsbG8=}'), "no certificate"),
        (WHOLE.replace(USER, "{client-certificate-data: aGVsbG8=, client-key-data: aGVsbG8=}"), "cannot be used"),
        (WHOLE.replace("https://127", "https://me:word@127"), "has a user in it"),
        (WHOLE.replace(USER, PLUGIN.format("no-such-plugin")), "credential plugin: [Errno 2]"),
        (WHOLE.replace(USER, PLUGIN.format("false")), "credential plugin: process returned 1"),
        (WHOLE.replace(USER, PLUGIN.format("echo")), "credential plugin: failed to decode"),
        (WHOLE, "Cannot connect to host 127.0.0.1:1"),
    ],
)
def test_what_is_no_kubeconfig_is_one_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    done = listed(tmp_path / "config", text)
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("Error: ")
    assert told in line


class Server(BaseHTTPRequestHandler):
    """Answers as nobody should, and remembers who asked."""

    asked_by: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked_by.append(self.headers["Authorization"])
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    Server.asked_by.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_answer_without_a_word_is_told_by_its_status(tmp_path: Path, address: str) -> None:
    done = listed(tmp_path / "config", WHOLE.replace("https://127.0.0.1:1", address))
    assert (done.exit_code, done.output) == (1, "Error: answered with 404, and not a word\n")


def test_in_a_pod_a_kubeconfig_goes_first_as_with_kubectl(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    done = CliRunner().invoke(list_tasks, [])
    assert "Service token file does not exist" in done.output, "without one, the pod's account"
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(WHOLE.replace("https://127.0.0.1:1", address))
    assert "answered with 404" in CliRunner().invoke(list_tasks, []).output
    (tmp_path / ".kube" / "config").rename(tmp_path / "other")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{tmp_path / 'other'}")
    assert "answered with 404" in CliRunner().invoke(list_tasks, []).output


async def test_a_plugin_is_asked_again_before_what_it_gave_expires(tmp_path: Path, address: str) -> None:
    asked = tmp_path / "asked"
    status = {"token": "t$(wc -l <asked)", "expirationTimestamp": "2020-01-01T00:00:00Z"}
    given = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    plugin = tmp_path / "plugin"
    text = json.dumps(given).replace('"', r"\"").replace("<asked", f"<{asked}")
    plugin.write_text(f'#!/bin/sh\necho >>{asked}\necho "{text}"\n')
    plugin.chmod(0o755)
    (tmp_path / "config").write_text(WHOLE.replace("https://127.0.0.1:1", address).replace(USER, PLUGIN.format(plugin)))
    api = await ApiServer.connect(
        in_cluster=False, agent="test", count=lambda **_: None, kubeconfig=str(tmp_path / "config")
    )
    for _ in range(2):
        with pytest.raises(ClusterError):
            await api.request("GET", "/", verb="get", resource="tasks")
    await api.close()
    assert Server.asked_by == ["Bearer t2", "Bearer t3"]


@pytest.mark.parametrize("name", ["", "A", "a b", "../../pods", "a/status", "a?x=y", "-", "a%2Fb", "a" * 254])
def test_what_is_no_name_is_refused_before_a_cluster_is_asked(name: str) -> None:
    done = CliRunner().invoke(status, ["--kubeconfig", "/no/such/file", "--", name])
    assert (done.exit_code, "is no name of a task" in done.output) == (2, True), done.output
    if name:
        done = CliRunner().invoke(status, ["-n", name, "digits", "--kubeconfig", "/no/such/file"])
        assert (done.exit_code, "is no name of a namespace" in done.output) == (2, True), done.output
