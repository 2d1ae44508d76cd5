"""The page that Prometheus reads (``agentscripts run --metrics``)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Address", "parse_address", "serve_metrics"]

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]*)):(?P<port>\d{1,5})"
)


class Address(NamedTuple):
    """Where to listen; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``127.0.0.1:9100``, ``localhost:9100``, ``[::1]:9100``, or ``:9100`` for all of IPv4.

    Raises ``ValueError``.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(
            f"{text!r} is no address, expected HOST:PORT or :PORT with a port from 0 to 65535"
        )
    # ":9100" asks for all interfaces.
    return Address(match["v6"] or match["host"] or "0.0.0.0", int(match["port"]))  # noqa: S104


@contextlib.contextmanager
def serve_metrics(registry: CollectorRegistry, address: Address) -> Iterator[Address]:
    """Serve the page in a thread of its own; give the address with the port that was found.

    Raises ``OSError`` when nobody can listen there.
    """
    from prometheus_client import start_http_server

    server, thread = start_http_server(address.port, address.host, registry)
    try:
        yield Address(address.host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
