"""What the registry's client makes of answers that no healthy registry gives."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schemas.registry import Registry, RegistryUnavailableError, UnknownSchemaError

Answer = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, body: bytes, **headers: str) -> Answer:
    """A plain answer."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return send


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server on loopback that gives one answer to everything; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says(500, b'{"error_code": 50001, "message": "no store"}'), id="500"),
        pytest.param(says(503, b"<html>"), id="503"),
        pytest.param(says(429, b'{"error_code": 42901}'), id="429"),
        pytest.param(says(401, b'{"error_code": 40101}'), id="401"),
        pytest.param(says(403, b"{}"), id="403"),
        pytest.param(says(404, b"<html>not here</html>"), id="404 of a proxy"),
        pytest.param(says(404, b'{"error_code": 404, "message": "HTTP 404"}'), id="404 of a path"),
        pytest.param(says(404, b'{"error_code": 40401, "message": "x"}'), id="another code"),
        pytest.param(says(301, b"", Location="http://127.0.0.1:1/"), id="redirect"),
        pytest.param(says(200, b"[]"), id="another shape"),
        pytest.param(says(200, b'{"schema": 7}'), id="no text"),
        pytest.param(says(200, b'{"schema": "{'), id="cut off"),
        pytest.param(says(200, b"{}", **{"Content-Length": "10"}), id="fewer bytes than said"),
    ],
)
def test_an_answer_that_is_not_the_registrys_word_is_an_outage(answer: Answer) -> None:
    with serving(answer) as url, Registry(url) as registry, pytest.raises(RegistryUnavailableError):
        registry.schema_by_id(1)


def test_only_the_registrys_own_code_says_that_a_schema_is_unknown() -> None:
    body = b'{"error_code": 40403, "message": "Schema 1 not found"}'
    unknown = pytest.raises(UnknownSchemaError)
    with serving(says(404, body)) as url, Registry(url) as registry, unknown:
        registry.schema_by_id(1)


def test_nobody_listening_is_an_outage_and_the_next_address_is_asked() -> None:
    with pytest.raises(RegistryUnavailableError), Registry("http://127.0.0.1:1") as registry:
        registry.schema_by_id(1)
    body = b'{"schema": "\\"string\\""}'
    with serving(says(200, body)) as url, Registry(f"http://127.0.0.1:1,{url}") as registry:
        assert registry.schema_by_id(1).text == '"string"'


def test_a_silent_registry_is_given_up_after_the_timeout() -> None:
    done = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        done.wait(30)

    with serving(silent) as url, Registry(url, timeout_s=0.2) as registry:
        with pytest.raises(RegistryUnavailableError):
            registry.schema_by_id(1)
        done.set()


def test_a_trickling_registry_is_given_up_after_the_timeout() -> None:
    given_up = threading.Event()

    def trickling(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        try:
            while not given_up.wait(0.02):
                request.wfile.write(b" ")
        except OSError:
            return

    with serving(trickling) as url, Registry(url, timeout_s=0.3) as registry:
        with pytest.raises(RegistryUnavailableError, match=r"longer than 0\.3 s"):
            registry.schema_by_id(1)
        given_up.set()


def test_passwords_are_sent_and_never_said() -> None:
    seen: list[str | None] = []

    def refuse(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["Authorization"])
        says(401, b"{}")(request)

    with serving(refuse) as url:
        with_secret = url.replace("http://", "http://me:s3cret@")
        with Registry(with_secret) as registry, pytest.raises(RegistryUnavailableError) as error:
            registry.schema_by_id(1)
        with (
            Registry(url, user="me", password="s3cret") as registry,
            pytest.raises(RegistryUnavailableError),
        ):
            registry.schema_by_id(1)
    assert "s3cret" not in str(error.value)
    assert seen == ["Basic bWU6czNjcmV0"] * 2


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "registry:8081"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="schema registry's URL"):
        Registry(url)


def test_credentials_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Registry("http://a:b@127.0.0.1:1", user="c")
