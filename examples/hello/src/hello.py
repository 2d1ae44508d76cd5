"""A web server that says hello."""

import http.server
import os
import sys
from pathlib import Path


def greeting(name: str) -> str:
    """Return what the server says to ``/name``."""
    return f"Hello, {name or 'world'}!\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Greets whom the path names."""

    def do_GET(self) -> None:
        """Answer a request."""
        body = greeting(self.path.strip("/")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(pid_file: str, url_file: str) -> None:
    """Serve on a free port until a signal comes; say in two files who serves, and where."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Path(pid_file).write_text(f"{os.getpid()}\n")
        # Its appearance tells that the server is ready, so it comes last, and whole.
        temporary = Path(f"{url_file}.new")
        temporary.write_text(f"http://127.0.0.1:{server.server_port}/\n")
        temporary.replace(url_file)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
