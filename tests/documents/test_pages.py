"""The pages hang together: every link leads somewhere, every page is found, what they name is there."""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from .pages import PAGES, ROOT, Block, anchors, blocks, every_block, headings, links, tokens
from .shell import OWN

LANGUAGES = {"sh", "console", "python", "yaml", "json", "toml", "mermaid", "text"}
INDEX = "docs/README.md"


def target(page: str, link: str) -> tuple[str, str]:
    """The file and the heading that a link leads to."""
    place, _, heading = link.partition("#")
    path = os.path.normpath(Path(page).parent / place) if place else page
    return path, heading


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        if re.match(r"(https|mailto):", link):
            continue
        path, heading = target(page, link)
        assert (ROOT / path).exists(), link
        if heading and path.endswith(".md"):
            assert heading in anchors(path), link


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    folders = "crds|docs|examples|helm|learner_image|operator|tests"
    named = {part.content for token in tokens(page) for part in token.children or () if part.type == "code_inline"}
    paths = [name for name in named if re.fullmatch(rf"(?:{folders})/[\w./-]+", name)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_is_found_from_the_index() -> None:
    listed = {target(INDEX, link)[0] for link in links(INDEX) if not link.startswith("https:")}
    assert {page for page in PAGES if page.startswith("docs/")} - {INDEX} <= listed
    assert INDEX in {target("README.md", link)[0] for link in links("README.md")}


def test_every_example_is_told_of() -> None:
    examples = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.yaml")}
    assert examples <= {target("docs/examples.md", link)[0] for link in links("docs/examples.md")}


@pytest.mark.parametrize("page", PAGES)
def test_no_two_headings_have_one_name(page: str) -> None:
    """Or a link to the second would need a number that nobody sees."""
    assert page == "CHANGELOG.md" or len(anchors(page)) == len(headings(page))


@pytest.mark.parametrize("block", every_block(), ids=str)
def test_a_block_is_in_a_language_and_reads_as_one(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.language != "console" or block.page in OWN, "what a command shows is compared by a test of the page"
    if block.language == "python":
        ast.parse(block.text if not block.text.startswith("    ") else f"if True:\n{block.text}")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "yaml":
        assert list(yaml.safe_load_all(block.text))
    elif block.language == "mermaid":
        assert_drawing(block.text)


_NODE = r'\w+(?:@\{[^}]*\}|[\[({]+"[^"]*"[\])}]+)?(?::::\w+)?'
_SHAPES = (
    r"(?:flowchart|graph) (?:TB|TD|LR)|sequenceDiagram|stateDiagram-v2",
    rf'{_NODE}(?: (?:-->|---|<-->|-\.->|==>)(?:\|"[^"]*"\|)? {_NODE})*',
    r'subgraph \w+(?:\["[^"]*"\])?|end|direction (?:TB|LR)',
    r"(?:actor|participant) \w+(?: as .+)?|autonumber",
    r"\w+-?->>[+-]?\w+: .+|Note (?:over|right of|left of) [\w,]+: .+",
    r"(?:loop|par|alt|opt|and|else|rect)(?: .+)?",
    r"classDef \w+ .+|class [\w,]+ \w+|%% .*",
    r"(?:\[\*\]|\w+) --> (?:\[\*\]|\w+)(?:: .+)?",
)


def assert_drawing(text: str) -> None:
    """Each line is of a shape that Mermaid is known to take: it runs in a browser alone, and not here."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert [line for line in lines if not any(re.fullmatch(shape, line) for shape in _SHAPES)] == []
    opened = [line for line in lines if re.match(r"(?:subgraph|loop|par|alt|opt|rect)\b", line)]
    assert lines.count("end") == len(opened)


def test_drawings_that_are_no_drawings_are_found() -> None:
    for wrong in ('flowchart LR\na["A" --> b', "flowchart LR\nsubgraph x", "sequenceDiagram\na->b c"):
        with pytest.raises(AssertionError):
            assert_drawing(wrong)


def test_pages_that_are_generated_or_kept_elsewhere_are_taken_apart_too() -> None:
    """So that nothing here passes because nothing was found."""
    assert {"README.md", "docs/task.md", "docs/concepts.md", "examples/tutorials/grpc_tutorial.md"} <= set(PAGES)
    assert len(blocks("docs/learners.md")) > 10
