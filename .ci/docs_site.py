"""What the site needs beyond mkdocs.yml: README.md as its first page, and doctests shown as code."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

README = Path(__file__).parents[1] / "README.md"
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """README.md becomes the first page."""
    files.append(File.generated(config, "index.md", content=README.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as they work in the repository become links as they work on the site.

    What lies outside docs/ is not on the site: of a link to it, the words remain.
    """
    here = page.file.src_uri
    folder = "" if here == "index.md" else dirname(f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        words, target, anchor = link.groups(default="")
        if "://" in target:
            return link[0]
        there = normpath(join(folder, target))
        there = "docs/index.md" if there == "README.md" else there
        if not there.startswith("docs/"):
            return words
        return f"[{words}]({relpath(there, dirname(f'docs/{here}'))}{anchor})"

    return LINK.sub(moved, markdown)


class Doctests(griffe.Extension):
    """A docstring's doctests become blocks of code; Markdown would read ``>>>`` as quotations."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
