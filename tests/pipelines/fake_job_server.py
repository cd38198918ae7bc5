"""An HTTP server that answers as a job server should not; a real one cannot be made to."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = (200, json.dumps({"ray_version": "2.60.0"}).encode())


def job(status, **more):
    """The answer to /api/jobs/night."""
    found = {
        "type": "SUBMISSION",
        "submission_id": "night",
        "status": status,
        "entrypoint": "python -m pipelines.cli status a",
        "driver_node_id": "ab" * 28,
        "driver_agent_http_address": "http://10.0.0.7:52365",
        **more,
    }
    return 200, json.dumps(found).encode()


@contextmanager
def answering(answers):
    """Start one.

    Args:
        answers: Status and body by path, without the question mark and what follows; a function
            gets the handler. What is not there is 404.

    Yields:
        Its address, and the list of the paths that are asked for.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer = answers.get(self.path.partition("?")[0], (404, b"no such page"))
            if callable(answer):
                answer(self)
                return
            status, body = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
