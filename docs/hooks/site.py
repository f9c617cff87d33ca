"""What mkdocs.yml cannot say: pages that lie outside docs/, links to them, and the help of every command."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, normpath, relpath
from unittest.mock import patch

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

from edge_vad.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {  # file of the repository: its page in the site
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "THIRD_PARTY_LICENSES.md": "licences.md",
    "benchmarks/README.md": "benchmarks.md",
}
HELP = "<!-- the help of every command -->"
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
log = get_plugin_logger("site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Section names in links are GitHub's, so that one link works in both places; the examples are found."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    examples = [page for page in pages_outside().values() if page.startswith("examples/")]
    if examples:
        config.nav.append({"Examples": examples})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in pages_outside().items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the repository has them become links of the site; the help of every command goes where it is asked for.

    Of a link to a file that is no page, such as code, the text remains. One to a file that is not there is a warning.
    """
    uri, pages = page.file.src_uri, pages_outside()
    source = next((path for path, name in pages.items() if name == uri), f"docs/{uri}")

    def in_the_site(found: re.Match[str]) -> str:
        text, link, section = found[1], found[2], found[3] or ""
        target = normpath(f"{source}/../{link}")
        inside = pages.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if inside:
            return f"[{text}]({relpath(inside, dirname(uri) or '.')}{section})"
        if not (ROOT / target).exists():
            log.warning("%s links to %s, which is not there", source, link)
        return text

    parts = FENCED.split(markdown)  # text, code, text, ...
    parts[::2] = [LINK.sub(in_the_site, text) for text in parts[::2]]
    markdown = "".join(parts)
    return markdown.replace(HELP, "\n".join(help_of_every_command())) if HELP in markdown else markdown


def pages_outside() -> dict[str, str]:
    """Files outside docs/ and their pages; the examples of firmware_examples/ are found."""
    examples = {
        f"firmware_examples/{path.parent.name}/README.md": f"examples/{path.parent.name}.md"
        for path in sorted((ROOT / "firmware_examples").glob("*/README.md"))
    }
    return {**OUTSIDE, **examples}


def help_of_every_command() -> Iterator[str]:
    """A section for each verb and each action of it, with what ``--help`` prints."""
    with patch.dict(os.environ, COLUMNS="100"):  # the width that argparse wraps at
        for verb, (module, what) in COMMANDS.items():
            parser = parser_of(module)
            yield from (f"## edge-vad {verb}", "", f"{what[0].upper()}{what[1:]}.", "", *fenced(parser))
            for action, below in actions_of(parser):
                yield from (f"### edge-vad {verb} {action}", "", *fenced(below))


def fenced(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """The help of a parser as a code block."""
    return ("```text", parser.format_help().rstrip(), "```", "")


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser of a command, taken where the command would begin to parse."""
    caught: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, *_: object) -> None:
        caught.append(parser)
        raise StopIteration

    with patch.object(argparse.ArgumentParser, "parse_args", catch):
        try:
            importlib.import_module(module).main([])
        except StopIteration:
            return caught[0]
    raise RuntimeError(f"{module} parses no arguments")


def actions_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The sub-commands of a verb with their parsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()
