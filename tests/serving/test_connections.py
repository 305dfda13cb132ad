"""Connections: too many are closed at once, those without a request soon, and all others are left alone."""

import asyncio
import contextlib

import pytest
import uvicorn

from serving import connections
from serving.options import Options

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def app(scope, receive, send):
    await asyncio.sleep(0.3 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Runs a test's coroutine with a server's port."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.15)

    def run(test, **options):
        async def whole():
            kind = connections.connection_class(Options(tmp_path, **options))
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", http=kind))
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            try:
                await asyncio.wait_for(test(port), 20)
            finally:
                server.should_exit = True
                await task

        asyncio.run(whole())

    return run


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def is_closed(reader) -> bool:
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(1), 5) == b""
    return True


def test_too_many_are_closed_and_the_others_answered(served):
    """Guards against idle connections that use up the files of the process, and with them everybody's answers."""

    async def test(port):
        kept = [await connect(port) for _ in range(3)]
        for _ in range(5):
            reader, _ = await connect(port)
            assert await is_closed(reader)
        reader, writer = kept[0]
        writer.write(REQUEST)
        assert b"200 OK" in await reader.read(200)
        for _, writer in kept:
            writer.close()
        await asyncio.sleep(0.05)
        reader, writer = await connect(port)
        writer.write(REQUEST)
        assert b"200 OK" in await reader.read(200)

    served(test, max_connections=3)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", REQUEST[:-2]], ids=["nothing", "half a line", "half a head"])
def test_a_head_that_does_not_come_ends_its_connection(served, sent):
    """Guards against connections that are held open for ever, byte by byte."""

    async def test(port):
        reader, writer = await connect(port)
        writer.write(sent)
        assert await is_closed(reader)

    served(test)


def test_requests_are_not_cut_off(served):
    """Guards against an answer that is lost because it took longer than a head may take, or came second."""

    async def test(port):
        reader, writer = await connect(port)
        for path in (b"/slow", b"/", b"/slow"):
            writer.write(REQUEST.replace(b"/ ", path + b" ", 1))
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.2)

    served(test)


def test_the_limit_of_files_is_raised_and_kept_to(monkeypatch, tmp_path):
    """Guards against accept() that fails, and is logged thousands of times a second."""
    calls = []
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _, limits: calls.append(limits))
    connections.raise_file_limit()
    assert calls == [(4096, 4096)]
    assert connections._most(Options(tmp_path)) == 1024 - connections.RESERVED
    assert connections._most(Options(tmp_path, max_connections=10)) == 10
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (100, 100))
    assert connections._most(Options(tmp_path)) == 1
