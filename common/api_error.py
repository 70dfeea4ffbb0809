"""How any part of the code refuses a request, from wherever it came: `ApiError`, and the checks of a name.

The rule of the file: code refuses a request by raising, never by returning; the sentence says what to do. Nothing
here knows how the client hears of it.
"""

import re
from collections.abc import Mapping
from typing import Any

#: Longest name in bytes of UTF-8, unless the caller says another length.
NAME_BYTES_MAX = 256

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ApiError(Exception):
    """Trouble with a request or with the cluster, as the client hears of it.

    `reason` is the code that programs read; `detail` is one sentence that says what to do; `facts` are further fields
    of the answer; `headers` are further headers such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        facts: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        #: A header may hold bytes that are not text; a detail that repeats them must not fail because of that.
        self.detail = detail if detail.isascii() else detail.encode("utf-8", "replace").decode()
        self.facts = dict(facts or {})
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """What the client gets: `{"ok": false, "reason", "detail", facts...}`."""
        return {"ok": False, "reason": self.reason, "detail": self.detail, **self.facts}


def bad_request(detail: str) -> ApiError:
    """400 with a sentence that names the field and says what to do."""
    return ApiError(400, "bad_request", detail)


def internal_error() -> ApiError:
    """500 for an error that nobody expected; the log has the details."""
    return ApiError(
        500, "internal", "This node met an error of its own; its log has the details. The outcome is unknown."
    )


def check_name(value: str, field: str, bytes_max: int = NAME_BYTES_MAX) -> str:
    """`value`, if it may name a lock, a queue, a key or an owner: 1 to `bytes_max` bytes, nothing invisible.

    Raises:
        ApiError: 400 naming `field`.
    """
    if not value:
        raise bad_request(f"The field `{field}` is empty; give 1 to {bytes_max} bytes of text.")
    size = len(value) if value.isascii() else len(value.encode())
    if size > bytes_max:
        raise bad_request(f"The field `{field}` has {size} bytes as UTF-8; at most {bytes_max} are allowed.")
    if not value.isprintable():
        if _CONTROL.search(value):
            raise bad_request(f"The field `{field}` holds a control character; leave it out.")
        if "\ufeff" in value:
            # A client whose file was saved with one would lock another lock than its neighbour, under the same
            # visible name.
            raise bad_request(f"The field `{field}` holds a byte order mark (U+FEFF), unseen; leave it out.")
    return value
