"""`collective operator`: options that mean nothing are refused, with their names and what was said."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from collective_operator.operator_cli import operator


@pytest.mark.parametrize("option", ["--namespace", "--lease-namespace", "--lease-name"])
@pytest.mark.parametrize("value", ["team-*", "a/../b", "Lab", "-a", "x" * 254])
def test_what_nothing_can_be_called_is_refused(option: str, value: str) -> None:
    done = CliRunner().invoke(operator, [f"{option}={value}"])
    assert done.exit_code == 2
    said = "".join(done.output.split())
    assert f"{option}" in said and f"{value!r}isnoname" in said


@pytest.mark.parametrize("value", ["x", "{}", '[{"pods": 1}]', "[1]", "[{}]"])
def test_bad_peers_are_refused(value: str) -> None:
    done = CliRunner().invoke(operator, [f"--metrics-from={value}"])
    assert done.exit_code == 2
    assert "--metrics-from" in done.output


@pytest.mark.parametrize(
    "value",
    [
        "grafana.example.com",
        "javascript:alert(1)",
        "https://x/y?z=1",
        "https://x y",
        f"https://{'x' * 300}",
        "https:///",
    ],
)
def test_what_is_no_web_page_is_refused(value: str) -> None:
    done = CliRunner().invoke(operator, [f"--grafana-url={value}"])
    assert done.exit_code == 2
    assert "is no address of a web page" in " ".join(done.output.split())
