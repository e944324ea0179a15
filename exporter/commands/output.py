"""Print what commands answer: results to standard output, progress and errors to standard error.

Texts come from settings, servers and senders: none of them is read as markup, and none can send
control characters to a terminal.
"""

import os
import sys
from enum import StrEnum

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text


class Mark(StrEnum):
    """What a line says about the thing that it names."""

    RIGHT = "right"
    NOTE = "note"
    WRONG = "wrong"


_COLOURS = {Mark.RIGHT: "green", Mark.NOTE: "yellow", Mark.WRONG: "red"}
_MARK_WIDTH = max(len(mark) for mark in Mark)


class BrokenOutputError(Exception):
    """Whoever read this output has gone."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenOutputError


class Output:
    """The two streams of a command."""

    def __init__(self) -> None:
        self.results = _console(stderr=False)
        self.progress = _console(stderr=True)
        """For progress bars and spinners, which redraw themselves in a terminal."""

    def result(self, text: str) -> None:
        """Print a line of what was asked for."""
        self.results.print(Text(printable(text)), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line about what is going on."""
        self.progress.print(Text(printable(text)), soft_wrap=True)

    def error(self, text: str) -> None:
        """Print what is wrong, as one line."""
        _print_marked(self.progress, Mark.WRONG, text)

    def finding(self, mark: Mark, text: str) -> None:
        """Print one line of a report about what is right and wrong."""
        _print_marked(self.results, mark, text)

    def bar(self, *columns: ProgressColumn) -> Progress:
        """Make a progress bar, with `columns` behind its description and bar."""
        return Progress(
            TextColumn("{task.description}"), BarColumn(), *columns, console=self.progress
        )


def _console(*, stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _print_marked(console: Console, mark: Mark, text: str) -> None:
    line = Text.assemble(
        (mark.ljust(_MARK_WIDTH), _COLOURS[mark]), "  ", printable(" ".join(text.split()))
    )
    console.print(line, soft_wrap=True)


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing it; line ends and tabs stay."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def prepare_streams() -> None:
    """Let a stream whose encoding lacks a character show its escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Send what is still buffered nowhere, so that no error follows at the interpreter's exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
