"""An HTTP request that is answered here, with a problem document, instead of being carried out."""

from runtime.net.http import Response, problem


class Refusal(Exception):
    """Raised where the fault is seen; `response` is the whole answer (RFC 9457) and says nothing about the inside. `code` is stable."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(f"{detail} [{code}]")
        self.code = code
        self.response: Response = problem(status, code, detail, retry_after=retry_after)
