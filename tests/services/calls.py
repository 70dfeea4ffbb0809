"""Calls without a server: a client that is there until the test says that it has gone."""

from collections.abc import Awaitable
from typing import Any

from services.operations.call import Call


class LoneCall(Call):
    """A request of a client that may go."""

    def __init__(self, key: str | None = None, host: Any = None, group: str = "") -> None:
        super().__init__(host, group)
        self._key = key
        self.gone = False

    @property
    def given_key(self) -> str | None:
        return self._key

    @property
    def role(self) -> str | None:
        return None

    @property
    def asked_from(self) -> str | None:
        return "127.0.0.1"

    def has_gone(self) -> bool:
        return self.gone


async def told(call: LoneCall, answer: Awaitable[Any]) -> Any:
    """The answer, told to the client or, where that has gone, to nobody: as `services.http.routes` does."""
    answered = await answer
    if call.gone and call.take_back is not None:
        call.take_back()
    return answered
