"""Show what `validate` waits for: a spinner in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.status import Status
from rich.text import Text

from exporter.commands.output import Output, printable

# Seconds between two lines about one phase, where no terminal redraws them.
_LINE_EVERY = 5.0


class Progress:
    """Says what is going on, on standard error."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._status: Status | None = None
        self._text = ""
        self._said_at = 0.0

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show a phase until it ends."""
        self._text = text
        if not self._output.progress.is_terminal:
            self._line(text)
            yield
            return
        with self._output.progress.status(Text(printable(text))) as self._status:
            yield
        self._status = None

    def update(self, detail: str) -> None:
        """Say how far the phase has come."""
        text = f"{self._text}: {detail}"
        if self._status is not None:
            self._status.update(Text(printable(text)))
        elif time.monotonic() - self._said_at >= _LINE_EVERY:
            self._line(text)

    def waiting(self, started: float, patience: float) -> None:
        """Say for how long something has been waited for (`started`: of `time.monotonic()`)."""
        self.update(f"{time.monotonic() - started:.0f} s of at most {patience:.0f} s")

    def _line(self, text: str) -> None:
        self._said_at = time.monotonic()
        self._output.say(text)
