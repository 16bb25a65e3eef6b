"""The pages for people, taken apart: blocks of code, the commands in them, headings, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "helm/collective-operator/*.md")
    for path in ROOT.glob(pattern)
)

_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is, where its first line is a comment with nothing but a name: ``# my-code/data.py``."""
        named = re.match(r"# ([\w./-]+\.(?:py|yaml|json|toml))\n", self.text)
        return named[1] if named else None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A line of a shell, with what was continued on the next one; without its comment."""

    block: Block
    text: str

    @property
    def page(self) -> str:
        return self.block.page

    @property
    def words(self) -> list[str]:
        """Its words, without variables that stand before it; a plugin of kubectl counts as the program that it is."""
        words = shlex.split(self.text)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        words[0] = words[0].removeprefix(".venv/bin/")
        return words[1:] if words[:2] == ["kubectl", "collective"] else words

    @property
    def program(self) -> str:
        return self.words[0]


def tokens(page: str) -> list[Token]:
    return _MARKDOWN.parse((ROOT / page).read_text())


def blocks(page: str) -> list[Block]:
    return [
        Block(page=page, line=(token.map or [0])[0] + 1, language=token.info.strip(), text=token.content)
        for token in tokens(page)
        if token.type in ("fence", "code_block")
    ]


def every_block() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> list[Command]:
    """What is typed: all of a block of `sh`, the lines behind a `$` in one of `console`.

    Lines that hand a variable on are one command: none of them means anything by itself.
    """
    if block.language not in ("sh", "console"):
        return []
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    bare = [text for line in lines if (text := re.sub(r"(^|\s+)#\s.*$", "", line).strip())]
    if any(re.match(r"[a-z]+=\$\(", text) for text in bare):
        bare = ["\n".join(bare)]
    return [Command(block=block, text=text) for text in bare]


def spoken(page: str) -> list[Command]:
    """Commands in the middle of a sentence; not those that only name one, or have a placeholder."""
    found = [
        (token.map or [0], part.content)
        for token in tokens(page)
        for part in token.children or ()
        if part.type == "code_inline" and re.match(r"(kubectl|helm|collective|make) \S", part.content)
    ]
    fragment = r"helm \w+ -|(?!make )\S+ \S+$"
    placeholder = r"<|\b(?!NS\b|TASK\b)[A-Z]{2,}\b"
    return [
        Command(block=Block(page=page, line=place[0] + 1, language="sh", text=text), text=text)
        for place, text in found
        if not re.match(fragment, text) and not re.search(placeholder, text)
    ]


def every_command() -> list[Command]:
    """All that is typed on any page."""
    typed = [command for block in every_block() for command in commands(block)]
    return typed + [command for page in PAGES for command in spoken(page)]


def headings(page: str) -> list[str]:
    """What stands in them, without the marks."""
    found = tokens(page)
    return [
        "".join(part.content for part in found[index + 1].children or () if part.type in ("text", "code_inline"))
        for index, token in enumerate(found)
        if token.type == "heading_open"
    ]


def anchors(page: str) -> set[str]:
    """The names under which GitHub links to its headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def links(page: str) -> Iterator[str]:
    """Where its links and pictures lead."""
    for token in tokens(page):
        for part in token.children or ():
            if part.type in ("link_open", "image"):
                yield str(part.attrs.get("href") or part.attrs.get("src"))
