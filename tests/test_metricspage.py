"""The page that Prometheus reads."""

from __future__ import annotations

import urllib.request

import pytest
from conftest import MakeRunner
from prometheus_client import CollectorRegistry

from agentscripts import Script
from agentscripts._metricspage import parse_address, serve_metrics


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        (":9100", ("0.0.0.0", 9100)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    """Metrics page: a host may be left out, an IPv6 address is in brackets."""
    assert parse_address(text) == address
    assert parse_address(str(parse_address(text))) == address


@pytest.mark.parametrize(
    "text", ["", "9100", "host:", "host:x", ":65536", "::1:9100", "http://host:9100", "a b:1"]
)
def test_bad_address(text: str) -> None:
    """Metrics page: what is no address is named, with what was expected."""
    with pytest.raises(ValueError, match="is no address, expected HOST:PORT or :PORT") as error:
        parse_address(text)
    assert str(error.value).startswith(repr(text))


@pytest.mark.slow
def test_page(make_runner: MakeRunner) -> None:
    """M1: the page has what the runner counts, and is gone afterwards with its thread."""
    registry = CollectorRegistry()
    runner = make_runner(Script(script="true"))
    runner.register_metrics(registry)
    runner.execute()
    with serve_metrics(registry, parse_address("127.0.0.1:0")) as address:
        assert address.port
        with urllib.request.urlopen(f"http://{address}/metrics") as page:
            text = page.read().decode()
    assert 'agent_scripts_executed_total{success="true"} 1.0' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/metrics")
