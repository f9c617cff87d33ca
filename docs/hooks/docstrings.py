"""Docstrings of this project as Markdown: examples, lists of fields, and the tables of a plug point keep their lines."""

from __future__ import annotations

import re
from typing import Any

import griffe

FIELD = re.compile(r"(?:\w+(?:, \w+)*): ")


class ProjectDocstrings(griffe.Extension):
    """Rewrites each docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute that was read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The docstring with every paragraph in the form that Markdown shows as it was meant."""
    return "\n\n".join(_paragraph(text) for text in re.split(r"\n\s*\n", docstring.strip("\n")))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if lines[0].lstrip().startswith(">>>"):
        return _fenced("pycon", [re.sub(r" +# doctest: .*", "", line) for line in lines])
    if len(lines) > 1 and set(lines[1]) == {"-"}:  # Required, Optional: rows of a name and what it is
        return f"**{lines[0]}**\n\n" + _fenced("text", lines[2:])
    if len(lines) > 1 and FIELD.match(lines[0]) and all(FIELD.match(line) or line.startswith(" ") for line in lines):
        return "\n".join(f"- {line}" if FIELD.match(line) else f"  {line.lstrip()}" for line in lines)
    return text


def _fenced(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
