"""End background tasks reliably, even where another error hides their cancellation.

A task that is cancelled while its connection dies can see a connection error instead of
CancelledError. Code that then ignores the error goes on for ever, and whoever waits for the task
waits for ever too. Whatever ignores errors around an await therefore asks here first.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

_CANCEL_AGAIN = 0.5  # seconds


def raise_if_cancelled(error: BaseException | None = None) -> None:
    """Raise CancelledError where the current task has been cancelled, from the error that hid it.

    Inside `asyncio.timeout` that has expired the CancelledError becomes its TimeoutError.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


@contextmanager
def ignoring(
    *errors: type[BaseException], report: Callable[[BaseException], object] | None = None
) -> Iterator[None]:
    """Ignore errors as `contextlib.suppress` does, but never a cancellation that they hide.

    `report` gets the error that is ignored.
    """
    try:
        yield
    except errors as error:
        raise_if_cancelled(error)
        if report is not None:
            report(error)


async def end_tasks(tasks: Collection[asyncio.Task[None]], *, within: float) -> bool:
    """Cancel tasks, again and again, until they have ended; return False after `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    running = {task for task in tasks if not task.done()}
    while running:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=min(left, _CANCEL_AGAIN))
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at: asyncio would complain about it otherwise
    return True
