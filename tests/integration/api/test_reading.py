"""What a client can read: every root field, relations both ways, nodes, and nothing hidden."""

import psycopg

from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api
from tests.integration.api.shop import MONDAY, Shop, busy_shop, order, payment, stock

ORDER = """{ order(orderId: "a") {
  id orderId version eventId status customerId currency amount discount
  items { sku quantity unitPrice }
  paid refunded outstanding paymentCount mismatchedPaymentCount placedAt updatedAt
  source { topic partition offset schemaId }
} }"""


def test_an_order_shows_every_field_in_its_exact_form(api: Api, database: Database) -> None:
    row = order("a", amount="12345678901234.5", discount="0.05", paid="7", version=2**62)
    stock(database.dsn, Shop([row]))
    shown = api.data(ORDER)["order"]
    assert shown.pop("id")
    assert shown == {
        "orderId": "a",
        "version": str(2**62),
        "eventId": "event-a",
        "status": "PLACED",
        "customerId": "ann",
        "currency": "EUR",
        "amount": "12345678901234.5000",
        "discount": "0.0500",
        "items": [{"sku": "tea", "quantity": 2, "unitPrice": "5.0000"}],
        "paid": "7.0000",
        "refunded": "0.0000",
        "outstanding": "12345678901227.4500",
        "paymentCount": 0,
        "mismatchedPaymentCount": 0,
        "placedAt": "2026-03-02T23:00:00.000000Z",
        "updatedAt": "2026-03-03T00:00:00.000000Z",
        "source": {"topic": "orders", "partition": 0, "offset": "41", "schemaId": 7},
    }


def test_a_payment_shows_every_field_and_its_order(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order("a")], [payment("a", "p"), payment("unknown", "q")]))
    shown = api.data(
        """{ payment(orderId: "a", paymentId: "p") {
          orderId paymentId version eventId status currency amount refundedAmount method
          occurredAt source { topic } order { orderId } }
          early: payment(orderId: "unknown", paymentId: "q") { order { orderId } } }"""
    )
    assert shown["payment"] == {
        "orderId": "a",
        "paymentId": "p",
        "version": "1",
        "eventId": "event-p",
        "status": "CAPTURED",
        "currency": "EUR",
        "amount": "4.0000",
        "refundedAmount": "0.0000",
        "method": "card",
        "occurredAt": "2026-03-02T23:00:00.000000Z",
        "source": {"topic": "payments"},
        "order": {"orderId": "a"},
    }
    assert shown["early"] == {"order": None}


def test_totals_are_read_by_key_and_lead_to_their_orders(api: Api, database: Database) -> None:
    late = MONDAY.replace(day=3, hour=0)
    rows = [
        order("a"),
        order("b", status="CANCELLED"),
        order("c", currency="USD"),
        order("d", customer_id="bob", placed_at=late),
    ]
    stock(database.dsn, Shop(rows))
    shown = api.data(
        """{ customerTotal(customerId: "ann", currency: "EUR") {
            customerId currency orderCount cancelledCount ordered paid refunded outstanding
            orders { totalCount nodes { orderId } } }
          dailySale(day: "2026-03-02", currency: "EUR") {
            day currency orderCount orders { nodes { orderId } } }
          next: dailySale(day: "2026-03-03", currency: "EUR") { orders { nodes { orderId } } } }"""
    )
    assert shown["customerTotal"] == {
        "customerId": "ann",
        "currency": "EUR",
        "orderCount": 2,
        "cancelledCount": 1,
        "ordered": "10.0000",
        "paid": "0.0000",
        "refunded": "0.0000",
        "outstanding": "10.0000",
        "orders": {"totalCount": 2, "nodes": [{"orderId": "a"}, {"orderId": "b"}]},
    }
    assert shown["dailySale"] == {
        "day": "2026-03-02",
        "currency": "EUR",
        "orderCount": 2,
        "orders": {"nodes": [{"orderId": "a"}, {"orderId": "b"}]},
    }
    assert shown["next"] == {"orders": {"nodes": [{"orderId": "d"}]}}


def test_no_such_row_is_null_and_no_error(api: Api) -> None:
    shown = api.data(
        """{ order(orderId: "x") { id } payment(orderId: "x", paymentId: "y") { id }
          customerTotal(customerId: "x", currency: "EUR") { id }
          dailySale(day: "2020-02-29", currency: "EUR") { id } }"""
    )
    assert shown == {"order": None, "payment": None, "customerTotal": None, "dailySale": None}


def test_relations_to_many_are_the_rows_with_that_key(api: Api, database: Database) -> None:
    shop = busy_shop()
    stock(database.dsn, shop)
    shown = api.data(
        """{ orders(first: 100) { nodes { orderId customerId
          payments(first: 100) { nodes { paymentId } totalCount }
          customerTotals { nodes { customerId currency } } } } }"""
    )
    for node in shown["orders"]["nodes"]:
        theirs = sorted(
            row["payment_id"] for row in shop.payments if row["order_id"] == node["orderId"]
        )
        assert [each["paymentId"] for each in node["payments"]["nodes"]] == theirs
        assert node["payments"]["totalCount"] == len(theirs)
        customer = {row["currency"] for row in shop.visible if _of(row, node["customerId"])}
        assert [each["currency"] for each in node["customerTotals"]["nodes"]] == sorted(customer)


def _of(row: dict[str, object], customer_id: str) -> bool:
    return row["customer_id"] == customer_id


def test_hidden_rows_are_never_shown_anywhere(api: Api, database: Database) -> None:
    rows = [order("seen"), order("gone", visible=False)]
    stock(database.dsn, Shop(rows, [payment("gone", "p")]))
    node_id = api.data('{ order(orderId: "seen") { id } }')["order"]["id"]
    with psycopg.connect(database.dsn) as connection:
        connection.execute("UPDATE build_1.orders SET visible = NOT visible")
    shown = api.data(
        """query ($id: ID!) { seen: order(orderId: "seen") { id } node(id: $id) { id }
          nodes(ids: [$id]) { id }
          orders { totalCount nodes { orderId } }
          payments { nodes { order { orderId } } }
          customerTotals { nodes { orders { totalCount nodes { orderId } } } } }""",
        id=node_id,
    )
    gone = [{"orderId": "gone"}]
    assert shown == {
        "seen": None,
        "node": None,
        "nodes": [None],
        "orders": {"totalCount": 1, "nodes": gone},
        "payments": {"nodes": [{"order": {"orderId": "gone"}}]},
        "customerTotals": {"nodes": [{"orders": {"totalCount": 1, "nodes": gone}}]},
    }


def test_nodes_of_every_type_are_found_again_by_id(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order('ä"[],.\\ \n')], [payment('ä"[],.\\ \n', "p")]))
    fields = "nodes { __typename id }"
    lists = api.data(
        f"{{ orders {{ {fields} }} payments {{ {fields} }} customerTotals {{ {fields} }}"
        f" dailySales {{ {fields} }} }}"
    )
    known = [node for each in lists.values() for node in each["nodes"]]
    assert [node["__typename"] for node in known] == [
        "Order",
        "Payment",
        "CustomerTotal",
        "DailySales",
    ]
    ids = [node["id"] for node in known]
    asked = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"
    assert api.data(asked, ids=ids)["nodes"] == known
    assert len(api.statements) == 1, "all types in one statement"
    one = api.data("query ($id: ID!) { node(id: $id) { __typename id } }", id=ids[1])
    assert one == {"node": known[1]}


def test_an_id_of_somebody_else_is_refused(api: Api) -> None:
    for node_id in ("", "x", "T3JkZXI6MQ==", "WyJPcmRlciJd", "WyJOb25lIiwgImEiXQ", "é"):
        asked = "query ($id: ID!) { node(id: $id) { id } }"
        assert api.code(asked, id=node_id) == "BAD_USER_INPUT", node_id


def test_text_that_cannot_be_stored_is_refused_wherever_it_comes(api: Api) -> None:
    single = "query ($text: String!) { order(orderId: $text) { id } }"
    listed = "query ($text: String!) { orders(where: {orderId: {eq: $text}}) { totalCount } }"
    for query in (single, listed):
        assert api.code(query, text="a\x00b") == "BAD_USER_INPUT"
        assert api.code(query, text="\ud800") == "BAD_REQUEST", "this is no JSON text"
