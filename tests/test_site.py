"""The documentation as a site: it is built without a warning and without a network, and every link in it leads somewhere."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import yaml

import edge_vad
from edge_vad.cli import COMMANDS

pytest.importorskip("mkdocs", reason="needs the extra docs: pip install -e '.[docs]'")
ROOT = Path(__file__).resolve().parents[1]
PLUG_POINTS = {"edge_vad.cameras.Camera", "edge_vad.backends.Backend", "edge_vad.banks.Bank", "edge_vad.sinks.Sink"}
NO_NETWORK = (  # for the process that builds: looking up or reaching any host is an error
    "import socket, sys\n"
    "def refuse(*_, **__): raise OSError('the site must be built without a network')\n"
    "socket.getaddrinfo = socket.socket.connect = refuse\n"
    "from mkdocs.__main__ import cli; cli(sys.argv[1:])\n"
)


class Parts(HTMLParser):
    """Links, sections and what a page loads by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.sections: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.sections |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif tag in ("link", "script", "img", "iframe"):
            self.loaded |= {found[name] for name in ("href", "src") if name in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The site, and what was said while it was built."""
    out = tmp_path_factory.mktemp("site")
    said = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return out, said.stdout + said.stderr


@pytest.fixture(scope="module")
def pages(built: tuple[Path, str]) -> dict[Path, Parts]:
    return {path: Parts(path.read_text(encoding="utf-8")) for path in built[0].rglob("*.html") if path.name != "404.html"}


def shown(text: str, page: str) -> str:
    """What the hook makes of the text of a page, which is named as the site names it."""
    hook = runpy.run_path(str(ROOT / "docs/hooks/site.py"))
    return str(hook["on_page_markdown"](text, SimpleNamespace(file=SimpleNamespace(src_uri=page)), None, None))


def test_links_of_the_repository_become_links_of_the_site() -> None:
    assert shown("[Keys](../../SECURITY.md#keys)", "guides/film.md") == "[Keys](../security.md#keys)"
    assert shown("[store](docs/store.md#keys)", "security.md") == "[store](store.md#keys)"
    assert shown("![a street](pictures/live_page.png)", "page.md") == "![a street](pictures/live_page.png)"
    assert shown("[the code](../edge_vad/cli.py), [here](#keys)", "store.md") == "the code, [here](#keys)"
    code = "```python\nplug_ins[name](rows)\n```"
    assert shown(code, "store.md") == code


def test_a_link_to_a_file_that_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    shown("[gone](../edge_vad/gone.py)", "store.md")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "docs/store.md links to ../edge_vad/gone.py, which is not there" in caplog.text


def test_it_is_built_without_a_warning(built: tuple[Path, str]) -> None:
    assert "WARNING" not in built[1] and "not included in the" not in built[1]


def test_every_link_leads_to_a_page_and_a_section(pages: dict[Path, Parts]) -> None:
    broken = []
    for page, parts in pages.items():
        for link in {unescape(link) for link in parts.links if not re.match(r"\w+:", link)}:
            path, _, section = link.partition("#")
            target = (page.parent / unquote(path)).resolve() if path else page
            if not target.exists() or (section and target in pages and unquote(section) not in pages[target].sections):
                broken.append(f"{page.name}: {link}")
    assert len(pages) > 20 and not broken


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Parts]) -> None:
    for page, parts in pages.items():
        assert not [address for address in parts.loaded if "//" in address], page.name
        assert all((page.parent / unquote(address.split("?")[0])).exists() for address in parts.loaded), page.name


def test_every_page_is_in_the_navigation(built: tuple[Path, str], pages: dict[Path, Parts]) -> None:
    start = built[0] / "index.html"
    html = start.read_text(encoding="utf-8")
    navigation = Parts(html[html.index('<nav class="md-nav md-nav--primary') : html.index('<div class="md-content"')])
    reached = {(built[0] / link.split("#")[0]).resolve() for link in navigation.links if not re.match(r"\w+:", link)}
    assert set(pages) - reached - {start} == set()
    written = set((ROOT / "docs").rglob("*.md"))
    assert {path.relative_to(ROOT / "docs").with_suffix("") for path in written} <= {
        path.relative_to(built[0]).with_suffix("") for path in pages
    }


def test_security_changes_benchmarks_and_examples_are_pages(pages: dict[Path, Parts], built: tuple[Path, str]) -> None:
    examples = {f"examples/{path.parent.name}.html" for path in (ROOT / "firmware_examples").glob("*/README.md")}
    wanted = {"security.html", "changelog.html", "benchmarks.html"} | examples
    assert wanted <= {path.relative_to(built[0]).as_posix() for path in pages}


def test_the_python_reference_has_every_public_name(pages: dict[Path, Parts], built: tuple[Path, str]) -> None:
    asked = set(re.findall(r"^::: ([\w.]+)$", (ROOT / "docs/reference/python.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert asked >= {f"edge_vad.{name}" for name in edge_vad.__all__} | PLUG_POINTS | {"edge_vad.methods.Method"}
    page = built[0] / "reference/python.html"
    text = page.read_text(encoding="utf-8")
    assert "Score the next frame" in text and "&gt;&gt;&gt;" in text and "<blockquote>" not in text
    assert all(any(section.endswith(name.split(".")[-1]) for section in pages[page].sections) for name in asked)


def test_the_command_reference_has_the_help_of_every_verb_and_action(built: tuple[Path, str]) -> None:
    text = unescape((built[0] / "reference/cli.html").read_text(encoding="utf-8"))
    assert not [verb for verb in COMMANDS if f'id="edge-vad-{verb}"' not in text]
    for words in ("edge-vad-bundle-inspect", "--budget-per-hour", "--fail-over 10%"):
        assert words in text


def test_lists_are_shown_as_lists(pages: dict[Path, Parts], built: tuple[Path, str]) -> None:
    """A list without an empty line before it is one on GitHub, and a paragraph here."""
    for page in pages:
        text = re.sub(r"<(pre|table)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"<p>[^<]*\n(?:- |\* |\d+\. |\|).*", text), page.name


def test_the_configuration_is_plain_yaml_and_loads_no_fonts() -> None:
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]["font"] is False
