"""Refusals: requests, or single images of a request, that get an error instead of a result."""


class RefusalError(Exception):
    """A request or an image that gets no result.

    Attributes:
        status: HTTP status.
        message: One sentence for the client.
        retry_after: Seconds after which a retry may succeed; None: a retry will not help.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after
