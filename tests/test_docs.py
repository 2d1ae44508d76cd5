"""The documentation: its links lead somewhere and its Python compiles."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def tokens(page: Path) -> Iterator[Token]:
    for block in MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text("utf-8")):
        yield block
        yield from block.children or ()


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, made as GitHub makes them."""
    blocks = MarkdownIt().parse(page.read_text("utf-8"))
    headings = [
        text.content.strip().lower()
        for opening, text in pairwise(blocks)
        if opening.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for token in tokens(page):
        link = str(token.attrGet("href") or token.attrGet("src") or "")
        if not link or "://" in link or link.startswith("mailto:"):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = page.parent / path if path else page
        is_broken = not target.exists()
        if fragment and target.suffix == ".md" and not is_broken:
            is_broken = fragment not in anchors(target)
        if is_broken:
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    """Each relative link of a page names a file that exists, and a heading in it."""
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_compile(page: Path) -> None:
    """Each ```python block of a page is valid Python."""
    for token in tokens(page):
        if token.type == "fence" and token.info.split()[:1] == ["python"]:
            compile(token.content, f"{page}:{(token.map or [0])[0] + 1}", "exec")
