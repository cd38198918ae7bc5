"""A proxy in front of an object store that goes wrong on purpose, in a process of its own.

    python -m tests.faulty_store --upstream http://127.0.0.1:5000 --port 5001 --seed 7 --rate 0.1

A seed says which requests go wrong: by the method, the path without random names, and how often
that was asked before, so that the same run meets the same faults. Rules make single cases:
GET, POST (JSON: rate, seed, rules; sets the counts back) of /_faults tells and changes all of it.
A rule is {"action": "503", "method": "PUT", "substring": "_delta_log", "count": 2, "skip": 0}, or
PUT:_delta_log:2:503 on the command line; without a count it holds until it is taken away.

Actions: 503 and 500 (the store does not see the request), reset (nor here, and no answer), hang
(no answer at all), lost (done, but the connection breaks before the answer), truncate (full
Content-Length, half of the bytes), delay (0.2 to 2 s); 409 and 412 (not done), 409_after and
412_after (done, and then refused); 403, with what the client has sent of its credentials, as S3
answers to a token that has expired.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import struct
from collections import Counter
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

ANY = ["503", "503", "500", "reset", "lost", "delay"]
CONDITIONAL = ["409", "409_after", "412_after"]
CODES = {
    "403": ("403 Forbidden", "ExpiredToken"),
    "500": ("500 Internal Server Error", "InternalError"),
    "503": ("503 Service Unavailable", "SlowDown"),
    "409": ("409 Conflict", "ConditionalRequestConflict"),
    "412": ("412 Precondition Failed", "PreconditionFailed"),
}
RANDOM_NAME = re.compile(r"[0-9a-f]{8,}(-[0-9a-f]{4,})*")
HEAD_BYTES = 1 << 20
COPY_BYTES = 64 * 1024


class Schedule:
    """Which request goes wrong, and how; counts what it has said."""

    def __init__(self, seed=0, rate=0.0, rules=()):
        self.seed, self.rate = seed, rate
        self.rules = [{"method": "", "substring": "", "skip": 0, "count": None, **r} for r in rules]
        self.faults, self.requests, self.bytes = Counter(), Counter(), Counter()
        self._asked = Counter()

    def fate(self, head):
        """The action for a request, or None; and random numbers of its own."""
        self.requests[head.method] += 1
        target = urlsplit(head.target)
        names = ",".join(sorted(name for name, _ in parse_qsl(target.query, True)))
        key = f"{head.method} {RANDOM_NAME.sub('*', target.path)} {names}"
        numbers = random.Random(f"{self.seed} {key} {self._asked[key]}")
        self._asked[key] += 1
        action = self._by_rule(head)
        if action is None and numbers.random() < self.rate:
            more = ["truncate"] * (head.method == "GET") + CONDITIONAL * head.is_conditional
            action = numbers.choice(ANY + more)
        if action:
            self.faults[action] += 1
        return action, numbers

    def _by_rule(self, head):
        for rule in self.rules:
            if rule["method"] not in ("", head.method) or rule["substring"] not in head.target:
                continue
            if rule["skip"]:
                rule["skip"] -= 1
            elif rule["count"] != 0:
                rule["count"] = rule["count"] and rule["count"] - 1
                return rule["action"]
        return None

    def told(self):
        what = {"seed": self.seed, "rate": self.rate, "rules": self.rules}
        counts = {"faults": self.faults, "requests": self.requests, "bytes": self.bytes}
        return json.dumps({**what, **counts}).encode()


class Head:
    """The first lines of a request or of a reply."""

    def __init__(self, raw):
        self.first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.headers = [tuple(map(str.strip, line.split(":", 1))) for line in lines]
        self.method, self.target, *_ = [*self.first.split(" "), ""]

    def get(self, name):
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def is_conditional(self):
        return self.method == "PUT" and bool(self.get("if-none-match") or self.get("if-match"))

    @property
    def is_chunked(self):
        return "chunked" in self.get("transfer-encoding").lower()

    @property
    def tells_length(self):
        return self.is_chunked or bool(self.get("content-length"))

    def raw(self, connection):
        kept = [(k, v) for k, v in self.headers if k.lower() not in ("connection", "expect")]
        lines = [f"{key}: {value}" for key, value in [*kept, ("Connection", connection)]]
        return "\r\n".join([self.first, *lines, "", ""]).encode("latin-1")


async def read_head(reader):
    return Head(await reader.readuntil(b"\r\n\r\n"))


def body_of(reader, head, length=0):
    """The bytes after a head as they come; `length` if it does not tell, None for all there are."""
    if head.is_chunked:
        return _chunks(reader)
    return _bytes(reader, int(head.get("content-length") or 0) if head.tells_length else length)


async def _chunks(reader):
    """With the marks between them, as they are to be handed on."""
    size = 1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        yield line + (await reader.readexactly(size + 2) if size else b"")
    trailer = b""
    while trailer != b"\r\n":
        trailer = await reader.readuntil(b"\r\n")
        yield trailer


async def _bytes(reader, left):
    while left is None or left > 0:
        some = await reader.read(COPY_BYTES if left is None else min(left, COPY_BYTES))
        if not some and left:
            raise asyncio.IncompleteReadError(b"", left)
        if not some:
            return
        left = left and left - len(some)
        yield some


async def drain(body):
    async for _ in body:
        pass


class Proxy:
    """Hands requests on, or not, as the schedule says."""

    def __init__(self, upstream, schedule):
        self.upstream, self.schedule = urlsplit(upstream), schedule

    async def serve(self, reader, writer):
        broken = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)
        with suppress(*broken):
            while await self._answer(reader, writer):
                await writer.drain()
        writer.close()
        with suppress(*broken):
            await writer.wait_closed()

    async def _answer(self, reader, writer):
        """Answer one request; whether the connection may serve another."""
        head = await read_head(reader)
        if head.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.target == "/_faults":
            body = b"".join([some async for some in body_of(reader, head)])
            return self._control(head, body, writer)
        action, numbers = self.schedule.fate(head)
        if action == "delay":
            await asyncio.sleep(numbers.uniform(0.2, 2))
        if action in CODES or action in ("reset", "hang"):
            await drain(body_of(reader, head))
            if action == "hang":
                await reader.read()  # until the client gives up
            return _refuse(writer, head, action) if action in CODES else _reset(writer)
        return await self._forward(head, reader, writer, action)

    def _control(self, head, body, writer):
        if head.method == "POST":
            self.schedule = Schedule(**json.loads(body))
        told = self.schedule.told()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
        return True

    async def _forward(self, head, reader, writer, action):
        address = (self.upstream.hostname, self.upstream.port or 80)
        up_reader, up_writer = await asyncio.open_connection(*address, limit=HEAD_BYTES)
        try:
            up_writer.write(head.raw("close"))
            async for some in body_of(reader, head):
                self.schedule.bytes["up"] += len(some)
                up_writer.write(some)
                await up_writer.drain()
            return await self._reply(head, up_reader, writer, action)
        finally:
            up_writer.close()

    async def _reply(self, head, up_reader, writer, action):
        reply = await read_head(up_reader)
        is_empty = head.method == "HEAD" or reply.target in ("204", "304")
        body = _bytes(up_reader, 0) if is_empty else body_of(up_reader, reply, None)
        code = (action or "").removesuffix("_after")
        if action == "lost":
            await drain(body)
            return _reset(writer)
        if action and code != action and reply.target.startswith("2"):
            await drain(body)
            return _refuse(writer, head, code)
        lasts = is_empty or reply.tells_length
        writer.write(reply.raw("keep-alive" if lasts else "close"))
        length = 0 if is_empty else int(reply.get("content-length") or 0)
        left = length // 2 if action == "truncate" and length else None
        async for some in body:
            part = some[:left]
            left = left and left - len(part)
            self.schedule.bytes["down"] += len(part)
            writer.write(part)
            await writer.drain()
            if left == 0:
                return False
        return lasts


def _refuse(writer, head, action):
    status, code = CODES[action]
    token, signed = (head.get(name) for name in ("x-amz-security-token", "authorization"))
    sent = f"<Token-0>{token}</Token-0><StringToSign>{signed}</StringToSign>"
    why = f"On purpose. {head.target}" + (sent if code == "ExpiredToken" else "")
    text = f"<Error><Code>{code}</Code><Message>{why}</Message></Error>".encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/xml", f"Content-Length: {len(text)}"]
    writer.write("\r\n".join([*lines, "", ""]).encode() + text * (head.method != "HEAD"))
    return True


def _reset(writer):
    """Break the connection so that the client sees it at once."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def rule_of(text):
    method, substring, count, action = text.split(":")
    count = int(count) if count else None
    return {"method": method, "substring": substring, "count": count, "action": action}


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", required=True, help="http://HOST:PORT of the store")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="share that goes wrong, 0 to 1")
    parser.add_argument("--rule", type=rule_of, action="append", default=[])
    options = parser.parse_args()
    proxy = Proxy(options.upstream, Schedule(options.seed, options.rate, options.rule))
    limits = {"limit": HEAD_BYTES, "backlog": 1024}
    async with await asyncio.start_server(proxy.serve, options.host, options.port, **limits) as at:
        await at.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
