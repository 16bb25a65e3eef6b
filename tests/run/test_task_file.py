"""Wrong files are refused with the file, the place and the reason, all at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from collective_operator.run.refusal import RefusedError
from collective_operator.run.task_file import read_task_file

HEAD = "apiVersion: collectivelearning.dev/v1alpha1\nkind: CollectiveTask\nmetadata: {name: t}\n"
SPEC = "spec: {model: {name: M}, dataLoader: {name: D}, rounds: 3, learners: {count: 2}}\n"
EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("*.yaml"))


def refused(tmp_path: Path, text: str | bytes) -> list[str]:
    path = tmp_path / "task.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RefusedError) as caught:
        read_task_file(path)
    assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
    return [problem.removeprefix(str(path)) for problem in caught.value.problems]


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("---\n" + HEAD + SPEC + "---\n")
    file = read_task_file(path)
    assert (file.task.name, file.task.namespace, file.task.spec.learners.count) == ("t", "default", 2)
    assert file.manifest["spec"]["rounds"] == 3


def test_numbers_are_those_of_kubectl(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    strategy = "strategy: {type: FedOpt, fedOpt: {tau: 1e-6, learningRate: 2E+0}}"
    named = SPEC.replace("name: M", "name: 1e, parameters: {a: '1e-3'}")
    path.write_text(HEAD + named.replace("rounds: 3", f"rounds: 3, {strategy}"))
    spec = read_task_file(path).task.spec
    assert spec.strategy.fed_opt is not None
    assert (spec.strategy.fed_opt.tau, spec.strategy.fed_opt.learning_rate) == (1e-6, 2.0)
    assert (spec.model.name, spec.model.parameters) == ("1e", {"a": "1e-3"})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(path: Path) -> None:
    read_task_file(path)


BOMB = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi"))
BOMB = f"a: &a [x, x, x, x, x, x, x, x, x]\n{BOMB}"
"""A few hundred bytes that stand for 9 to the power of 9 values."""


def test_there_are_examples() -> None:
    assert {"digits.yaml", "digits-torch.yaml", "digits-fedavg-gated.yaml"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a: [1\nb: 2",
            ":2:2: is no valid YAML: while parsing a flow sequence, expected ',' or ']', but got ':'",
        ),
        ("a: 1\n\tb: 2", ":2:1: is no valid YAML: while scanning for the next token, found character '\\t'"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}", ":2:17: is no valid YAML: the key 'c' stands here for the second time"),
        ("? [1, 2]\n: x", ":1:3: is no valid YAML: the key [1, 2] is no text"),
        ("a: !!python/object:os.system {}", ":1:4: is no valid YAML: could not determine a constructor"),
        ("a: 1\nb: 2026-02-30", ":2:4: is no valid YAML: '2026-02-30' is no timestamp"),
        ("a: !!int ''", ":1:4: is no valid YAML: '' is no int"),
        ("a: !!timestamp x", ":1:4: is no valid YAML: 'x' is no timestamp"),
        ("[" * 100_000, ":1:121: is no valid YAML: lists and mappings stand too deep in one another"),
        ("[" * 120 + "]" * 120, ": holds a list, expected a mapping with kind: CollectiveTask"),
        ('{"a":' * 500 + "1" + "}" * 500, ":1:601: is no valid YAML: lists and mappings stand too deep in one another"),
        ("a: &a [*a]", ": aliases make more than 1,000,000 values of it, or hold themselves"),
        (BOMB, ": aliases make more than 1,000,000 values of it, or hold themselves"),
        ("", ": is empty, expected exactly one CollectiveTask"),
        ("# only a comment\n---\n", ": is empty, expected exactly one CollectiveTask"),
        (HEAD + SPEC + "---\n" + HEAD + SPEC, ": holds 2 documents, expected exactly one CollectiveTask"),
        ("- a\n- b", ": holds a list, expected a mapping with kind: CollectiveTask"),
        (b"a: \xff", ": is no text in UTF-8: invalid start byte at byte 3"),
    ],
)
def test_what_is_no_task_is_named_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    problems = refused(tmp_path, text)
    assert len(problems) == 1
    assert problems[0].startswith(said)


def test_all_problems_of_a_task_come_at_once(tmp_path: Path) -> None:
    problems = refused(
        tmp_path,
        HEAD + "spec: {model: {nam: M}, dataLoader: {name: D}, rounds: 0, learners: {count: two}, color: blue}",
    )
    paths = {problem.split(": ")[1] for problem in problems}
    assert {"spec.model.name", "spec.model.nam", "spec.rounds", "spec.learners.count", "spec.color"} <= paths


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "missing.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(RefusedError, match=reason) as caught:
            read_task_file(path)
        assert str(path) in caught.value.problems[0]
