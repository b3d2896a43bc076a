"""Live queries over graphql-transport-ws: at once, then what changed, and never back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from api.app import Service, create_app
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_callers import RULES, SECRET, customer, signed

ORDER = 'subscription { order(orderId: "a") { status amount } }'
PROTOCOL = ["graphql-transport-ws"]


@pytest.fixture
def client(database: Database) -> Iterator[TestClient]:
    """An API that listens, on a shop with one order."""
    stock(database.dsn, Shop([order("a"), order("b", customer_id="bob")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    with TestClient(create_app(settings(database.api_dsn))) as client:
        eventually(lambda: service(client).movements.listening, 10, "the API listens")
        yield client


def service(client: TestClient) -> Service:
    """The parts of a running API."""
    app = client.app
    assert isinstance(app, Starlette)
    found: Service = app.state.service
    return found


def change(dsn: str, offset: int, status: str | None, key: str = "a") -> None:
    """What the worker does: a row if it has one, the position, and word of it."""
    with psycopg.connect(dsn) as connection:
        if status is not None:
            connection.execute(
                "UPDATE build_1.orders SET status = %s WHERE order_id = %s", (status, key)
            )
        connection.execute(
            "UPDATE build_1.positions SET next_offset = %s WHERE topic = 'orders'", (offset + 1,)
        )
        connection.execute("SELECT pg_notify('viewkeeper', %s)", (f"build_1 orders:0:{offset}",))


@contextmanager
def connected(
    client: TestClient, headers: dict[str, str] | None = None, /, **payload: Any
) -> Iterator[WebSocketTestSession]:
    """A socket that is let in."""
    with client.websocket_connect(
        "/graphql", subprotocols=PROTOCOL, headers=headers or {}
    ) as socket:
        socket.send_json({"type": "connection_init", "payload": payload})
        assert socket.receive_json() == {"type": "connection_ack"}
        yield socket


def subscribe(
    socket: WebSocketTestSession, query: str = ORDER, id_: str = "1", **more: Any
) -> None:
    """Ask."""
    socket.send_json({"type": "subscribe", "id": id_, "payload": {"query": query, **more}})


def next_of(socket: WebSocketTestSession, id_: str = "1") -> dict[str, Any]:
    """The payload of the next message, which must be a result."""
    message = socket.receive_json()
    assert (message["type"], message["id"]) == ("next", id_), message
    payload: dict[str, Any] = message["payload"]
    return payload


def status_of(payload: dict[str, Any]) -> str:
    """What the order of a result says."""
    status: str = payload["data"]["order"]["status"]
    return status


def label(payload: dict[str, Any]) -> dict[str, Any]:
    """The consistency of a result."""
    consistency: dict[str, Any] = payload["extensions"]["consistency"]
    return consistency


def test_the_current_result_comes_at_once_and_then_each_changed_one(
    client: TestClient, database: Database
) -> None:
    with connected(client) as socket:
        subscribe(socket)
        first = next_of(socket)
        assert first["data"] == {"order": {"status": "PLACED", "amount": "10.0000"}}
        assert label(first)["position"].startswith("orders:0:0,")
        ids = {label(first)["resultId"]}
        for offset, status in enumerate(("CONFIRMED", "SHIPPED", "DELIVERED"), start=1):
            change(database.dsn, offset, status)
            payload = next_of(socket)
            assert status_of(payload) == status
            assert label(payload)["position"].startswith(f"orders:0:{offset},")
            ids.add(label(payload)["resultId"])
        assert len(ids) == 4


def test_what_does_not_change_the_result_is_not_sent(
    client: TestClient, database: Database
) -> None:
    with connected(client) as socket:
        subscribe(socket)
        next_of(socket)
        change(database.dsn, 1, None)
        change(database.dsn, 2, "SHIPPED", key="b")
        change(database.dsn, 9, "SHIPPED")
        assert label(next_of(socket))["position"].startswith("orders:0:9,")


def test_lists_are_followed_with_their_filters(client: TestClient, database: Database) -> None:
    query = """subscription Shipped($w: OrderWhere!) { ...Rows }
      fragment Rows on Subscription { orders(where: $w, first: 5) { nodes { orderId } } }"""
    with connected(client) as socket:
        subscribe(socket, query, variables={"w": {"status": {"eq": "SHIPPED"}}})
        assert next_of(socket)["data"]["orders"]["nodes"] == []
        change(database.dsn, 1, "SHIPPED", key="b")
        assert next_of(socket)["data"]["orders"]["nodes"] == [{"orderId": "b"}]


def test_equal_queries_share_one_computation(client: TestClient, database: Database) -> None:
    with connected(client) as one, connected(client) as two:
        for socket in (one, two):
            subscribe(socket)
            next_of(socket)
        subscribe(two, ORDER.replace('"a"', '"b"'), id_="2")
        next_of(two, "2")
        assert service(client).live.computed == 2
        change(database.dsn, 1, "SHIPPED")
        assert status_of(next_of(one)) == status_of(next_of(two)) == "SHIPPED"
        two.send_json({"type": "complete", "id": "2"})
        eventually(lambda: service(client).live.computed == 1, 5, "it is left")
    eventually(lambda: service(client).live.computed == 0, 5, "nobody follows any more")


def test_a_client_that_comes_back_hears_only_what_it_has_not_seen(
    client: TestClient, database: Database
) -> None:
    with connected(client) as socket:
        subscribe(socket)
        seen = label(next_of(socket))
    resumed: dict[str, Any] = {
        "extensions": {"consistency": {"atLeast": seen["position"], "resultId": seen["resultId"]}}
    }
    with connected(client) as socket:
        subscribe(socket, **resumed)
        eventually(lambda: service(client).live.computed == 1, 5, "it follows")
        change(database.dsn, 1, "SHIPPED")
        assert status_of(next_of(socket)) == "SHIPPED"
    change(database.dsn, 2, "DELIVERED")
    with connected(client) as socket:
        subscribe(socket, **resumed)
        assert status_of(next_of(socket)) == "DELIVERED", "changed meanwhile: sent at once"


def test_a_resumed_client_never_goes_back(client: TestClient) -> None:
    ahead: dict[str, Any] = {
        "extensions": {"consistency": {"atLeast": "orders:0:99", "timeoutMs": 50}}
    }
    with connected(client) as socket:
        subscribe(socket, **ahead)
        message = socket.receive_json()
    assert message["type"] == "error"
    assert message["payload"][0]["extensions"]["code"] == "STALE"


def test_many_changes_end_in_the_last_state_and_never_go_back(
    client: TestClient, database: Database
) -> None:
    with connected(client) as socket:
        subscribe(socket)
        next_of(socket)
        for offset in range(1, 41):
            change(database.dsn, offset, "SHIPPED" if offset % 2 else "CONFIRMED")
        change(database.dsn, 41, "DELIVERED")
        offsets = []
        while True:
            payload = next_of(socket)
            offsets.append(int(label(payload)["position"].split(",")[0].split(":")[2]))
            if status_of(payload) == "DELIVERED":
                break
    assert offsets == sorted(offsets)
    assert offsets[-1] == 41


def test_the_database_may_go_away_for_a_moment(client: TestClient, database: Database) -> None:
    with connected(client) as socket:
        subscribe(socket)
        next_of(socket)
        with psycopg.connect(database.api_dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = current_user AND datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
        change(database.dsn, 1, "SHIPPED")
        assert status_of(next_of(socket)) == "SHIPPED"


def test_queries_run_over_a_socket_too(client: TestClient) -> None:
    with connected(client) as socket:
        subscribe(socket, '{ order(orderId: "a") { status } }')
        assert status_of(next_of(socket)) == "PLACED"
        assert socket.receive_json() == {"type": "complete", "id": "1"}
        subscribe(socket, "{ nothing }")
        message = socket.receive_json()
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
        socket.send_json({"type": "ping"})
        assert socket.receive_json() == {"type": "pong"}


def test_a_subscription_by_plain_http_is_refused(client: TestClient) -> None:
    body = client.post("/graphql", json={"query": ORDER}).json()
    assert body["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


def closes(client: TestClient, *messages: Any, **given: Any) -> int:
    """The code that the server ends the connection with."""
    with pytest.raises(WebSocketDisconnect) as caught:
        _talk(client, messages, {"subprotocols": PROTOCOL, **given})
    return caught.value.code


def _talk(client: TestClient, messages: Iterable[Any], given: dict[str, Any]) -> None:
    with client.websocket_connect("/graphql", **given) as socket:
        for message in messages:
            if isinstance(message, bytes):
                socket.send_bytes(message)
            elif isinstance(message, str):
                socket.send_text(message)
            else:
                socket.send_json(message)
        while True:
            socket.receive_json()


INIT = {"type": "connection_init"}
ASK = {"type": "subscribe", "id": "1", "payload": {"query": ORDER}}


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        (4400, ["{"]),
        (4400, ["[]"]),
        (4400, [b"{}"]),
        (4400, [{"type": "what"}]),
        (4400, [INIT, {"type": "subscribe", "payload": {"query": ORDER}}]),
        (4400, [INIT, {"type": "subscribe", "id": "1"}]),
        (4400, [INIT, {"type": "subscribe", "id": "1", "payload": {"query": 1}}]),
        (4400, [{"type": "connection_init", "payload": 7}]),
        (4401, [ASK]),
        (4409, [INIT, ASK, ASK]),
        (4429, [INIT, INIT]),
        (1009, ["x" * 70_000]),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_by_the_close_code(
    client: TestClient, code: int, messages: list[Any]
) -> None:
    assert closes(client, *messages) == code


def test_another_protocol_is_not_spoken(client: TestClient) -> None:
    assert closes(client, subprotocols=["graphql-ws"]) == 4406
    assert closes(client, subprotocols=[]) == 4406


def test_who_says_nothing_is_not_waited_for(client: TestClient) -> None:
    service(client).sockets.init_timeout_s = 0.05
    assert closes(client) == 4408


def test_a_page_of_another_origin_is_turned_away(client: TestClient) -> None:
    assert closes(client, headers={"Origin": "https://evil.example"}) == 1008
    headers = {"Origin": "http://testserver"}
    with client.websocket_connect("/graphql", subprotocols=PROTOCOL, headers=headers) as socket:
        socket.send_json(INIT)
        assert socket.receive_json()["type"] == "connection_ack"


def test_too_many_operations_of_one_client_are_refused(client: TestClient) -> None:
    with connected(client) as socket:
        for number in range(21):
            subscribe(socket, id_=str(number))
        kinds = [socket.receive_json() for _ in range(21)]
        refused = [each for each in kinds if each["type"] == "error"]
        assert [each["id"] for each in refused] == ["20"]
        assert refused[0]["payload"][0]["extensions"]["code"] == "BAD_REQUEST"


def test_an_id_may_be_used_again(client: TestClient) -> None:
    with connected(client) as socket:
        for _ in range(3):
            subscribe(socket)
            next_of(socket)
            socket.send_json({"type": "complete", "id": "1"})


def test_tokens_decide_who_follows_what_and_for_how_long(
    client: TestClient, database: Database
) -> None:
    rules = {"api_jwt_secret": SECRET, **RULES, "api_jwt_leeway_s": 0}
    with TestClient(create_app(settings(database.api_dsn, **rules))) as guarded:
        assert closes(guarded, INIT) == 4403
        wrong = {"type": "connection_init", "payload": {"Authorization": "Bearer x"}}
        assert closes(guarded, wrong) == 4403
        bearer = f"Bearer {customer('bob')}"
        with connected(guarded, Authorization=bearer) as socket:
            subscribe(socket, "subscription { orders { nodes { orderId } } }")
            assert next_of(socket)["data"]["orders"]["nodes"] == [{"orderId": "b"}]
            subscribe(socket, ORDER, id_="2")
            assert next_of(socket, "2")["data"] == {"order": None}
        with psycopg.connect(database.dsn) as connection:
            (now_s,) = connection.execute("SELECT extract(epoch FROM now())::int").fetchone() or ()
        short = {"Authorization": f"Bearer {signed(exp=now_s + 2)}"}
        assert closes(guarded, {"type": "connection_init", "payload": short}) == 4403


def test_a_process_that_ends_says_good_bye(database: Database) -> None:
    with TestClient(create_app(settings(database.api_dsn))) as client:
        with connected(client) as socket:
            assert client.portal is not None
            client.portal.call(service(client).sockets.goodbye)
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_json()
        assert caught.value.code == 1001
