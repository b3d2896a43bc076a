"""GraphiQL from files beside the code: it needs no network, and only `/graphql` to talk to.

Stands apart because it is the only thing here that a browser renders; off unless a setting says so.
"""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

FOLDER: Final = Path(__file__).parent / "graphiql"
# GraphiQL writes style attributes; scripts come from here alone.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " font-src 'self' data:; img-src 'self' data:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


def routes() -> list[Route | Mount]:
    """The files that the page asks for."""
    return [Mount("/ide", StaticFiles(directory=FOLDER))]


def is_wanted(request: Request) -> bool:
    """Whether a browser shows the address to a person, who has no query to run yet."""
    accepts_html = "text/html" in request.headers.get("accept", "")
    return request.method == "GET" and accepts_html and "query" not in request.query_params


def page() -> Response:
    """The page."""
    return FileResponse(FOLDER / "index.html", headers={"Content-Security-Policy": POLICY})
