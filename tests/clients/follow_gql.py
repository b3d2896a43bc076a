"""gql, the Python client: queries by HTTP, and a live query whose socket it opens again itself.

Goes through the same steps as the clients in JavaScript beside it, and tells them the same way.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from typing import Any, cast

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.httpx import HTTPXTransport
from gql.transport.websockets import WebsocketsTransport
from graphql import ExecutionResult

PAGE = 7
FOLLOWED = "o001"
AWAY_S = 0.1
ORDERS = """
query Orders($first: Int, $after: String, $last: Int, $before: String, $where: OrderWhere) {
  orders(first: $first, after: $after, last: $last, before: $before, where: $where) {
    nodes { orderId }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""
LIVE = "subscription Live($id: String!) { order(orderId: $id) { id status } }"


def say(step: str, **evidence: Any) -> None:
    """One line."""
    print(json.dumps({"step": step, **evidence}), flush=True)


def walk(address: str) -> None:
    """Pages there and back, and a filter."""
    with Client(transport=HTTPXTransport(url=address)) as session:

        def orders(**variables: Any) -> tuple[list[str], dict[str, Any]]:
            answer = session.execute(GraphQLRequest(ORDERS, variable_values=variables))
            page = answer["orders"]
            return [node["orderId"] for node in page["nodes"]], page["pageInfo"]

        forward, info = orders(first=PAGE)
        while info["hasNextPage"]:
            ids, info = orders(first=PAGE, after=info["endCursor"])
            forward += ids
        back, info = orders(last=PAGE)
        while info["hasPreviousPage"]:
            ids, info = orders(last=PAGE, before=info["startCursor"])
            back = ids + back
        say("pages", forward=forward, back=back)
        say("filter", ids=orders(first=100, where={"status": {"eq": "SHIPPED"}})[0])


async def follow(address: str, told: asyncio.Event) -> None:
    """A live query that goes on where it was, for ever."""
    extensions: dict[str, Any] = {}
    while True:
        transport = WebsocketsTransport(url=address.replace("http", "ws"))
        request = GraphQLRequest(
            LIVE, variable_values={"id": FOLLOWED}, extensions={"consistency": extensions}
        )
        try:
            async with Client(transport=transport) as session:
                results = session.subscribe(request, get_execution_result=True)
                async for result in cast(AsyncGenerator[ExecutionResult, None], results):
                    seen = (result.extensions or {})["consistency"]
                    extensions = {"atLeast": seen["position"], "resultId": seen["resultId"]}
                    say("live", status=(result.data or {})["order"]["status"], **seen)
        except (TransportError, OSError):
            # The server is away: come again soon.
            try:
                await asyncio.wait_for(told.wait(), AWAY_S)
            except TimeoutError:
                continue


async def main(address: str) -> None:
    """The whole way, until our standard input is closed."""
    await asyncio.to_thread(walk, address)
    told = asyncio.Event()
    following = asyncio.create_task(follow(address, told))
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([following, reading], return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        following.result()
    following.cancel()
    say("end")


if __name__ == "__main__":
    asyncio.run(main(f"{sys.argv[1]}/graphql"))
