"""What commands say of kubeconfigs and names that are not as they should be: one line, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collective_operator.commands.listing import list_tasks
from collective_operator.commands.status import status

CLUSTER = '{server: "https://127.0.0.1:1"}'
USER = "{token: x}"
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
        (WHOLE, "Cannot connect to host 127.0.0.1:1"),
    ],
)
def test_what_is_no_kubeconfig_is_one_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    done = listed(tmp_path / "config", text)
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("Error: ")
    assert told in line


@pytest.mark.parametrize("name", ["", "A", "a b", "../../pods", "a/status", "a?x=y", "-", "a%2Fb", "a" * 254])
def test_what_is_no_name_is_refused_before_a_cluster_is_asked(name: str) -> None:
    done = CliRunner().invoke(status, ["--kubeconfig", "/no/such/file", "--", name])
    assert (done.exit_code, "is no name of a task" in done.output) == (2, True), done.output
    if name:
        done = CliRunner().invoke(status, ["-n", name, "digits", "--kubeconfig", "/no/such/file"])
        assert (done.exit_code, "is no name of a namespace" in done.output) == (2, True), done.output
