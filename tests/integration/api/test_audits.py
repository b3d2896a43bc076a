"""GraphQL over HTTP, as the audits of the `graphql-http` package see it."""

import threading
from collections.abc import Iterator

import pytest
import uvicorn

from api.app import create_app
from dev.ports import LOOPBACK, free_port
from tests.fixtures.clients import Clients
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings

AUDITS = 61


@pytest.fixture
def address(shared_database: Database) -> Iterator[str]:
    """An API on a port."""
    port = free_port(None)
    app = create_app(settings(shared_database.api_dsn))
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, 20, "the API serves")
        yield f"http://{LOOPBACK}:{port}/graphql"
    finally:
        server.should_exit = True
        thread.join()


def test_every_audit_passes(clients: Clients, address: str) -> None:
    results = clients.run("audits.mjs", address)
    failed = [each for each in results if each["status"] != "ok"]
    assert not failed, "\n".join(f"{each['name']}: {each.get('reason')}" for each in failed)
    assert len(results) == AUDITS
