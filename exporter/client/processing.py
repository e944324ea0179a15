"""The processing of one webhook, as a context manager."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from .errors import ClientError
from .log import log


class Processing:
    """The processing of one webhook: set its outcome; leaving the block reports its completion.

    An exception in the block makes it a failure, and goes on to the caller.
    """

    def __init__(self, complete: Callable[["Processing"], object], tracking_id: str) -> None:
        self._complete = complete
        self.tracking_id = tracking_id
        self.success = True
        self.enrichment_data: dict[str, Any] | None = None
        self.ai_activated: bool | None = None

    def __enter__(self) -> "Processing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.success = False
        try:
            self._complete(self)
        except ClientError as failed:
            if kind is None:
                raise
            # The caller's own exception matters more than ours.
            log.warning("the completion of a webhook is not tracked: %s", failed)

    async def __aenter__(self) -> "Processing":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)
