"""What holds for all tests: a slow machine is no failure, and an operation refuses only with what it declares."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, settings

from common import middleware
from services.catalogue import OPERATIONS
from services.operations.refusals import ALWAYS

# By default hypothesis fails a test of which one example took 200 ms, or whose examples took a second to be made:
# a machine that stands still for a moment does both.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def undeclared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Refusals that an operation gave and its row does not name: there must be none."""
    found: list[tuple[str, str]] = []
    answer = middleware._error_response

    def look(request: web.Request, error: Exception, translate: Any) -> web.Response:
        known = error if isinstance(error, middleware.ApiError) else translate(error)
        resource = request.match_info.route.resource
        operation = OPERATIONS.by_path.get((request.method, resource.canonical if resource is not None else ""))
        if known is not None and operation is not None and known.reason not in (*ALWAYS, *operation.refuses):
            found.append((operation.name, known.reason))
        return answer(request, error, translate)

    monkeypatch.setattr(middleware, "_error_response", look)
    yield found
    assert found == []
