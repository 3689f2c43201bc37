"""Addresses as text and as values."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioserver._addresses import TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9501", TcpAddress("127.0.0.1", 9501)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("example.com:65535", TcpAddress("example.com", 65535)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("[::]:80", TcpAddress("::", 80)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:/run/with:colon", UnixAddress("/run/with:colon")),
    ],
)
def test_text_and_value_say_the_same(text: str, address: TcpAddress | UnixAddress) -> None:
    """What is parsed is written again as it was."""
    parsed = parse_address(text)

    assert parsed == address
    assert str(parsed) == text


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_makes_the_round_trip(ip: object, port: int) -> None:
    """IPv6 in brackets, IPv4 without."""
    address = TcpAddress(str(ip), port)

    assert parse_address(str(address)) == address


def test_a_relative_path_becomes_absolute() -> None:
    """So that it means the same after a change of directory."""
    assert parse_address("unix:app.sock") == UnixAddress(os.path.abspath("app.sock"))


@pytest.mark.parametrize("text", ["", "9501", ":9501", "localhost", "[]:80", "localhost:80:", "["])
def test_what_is_no_address_is_named(text: str) -> None:
    """The message has the text."""
    with pytest.raises(ValueError, match=rf": {re.escape(repr(text))}$"):
        parse_address(text)


@pytest.mark.parametrize("port", ["", "65536", "-1", "http", "٣", " 80", "8_0", "9" * 5000])
def test_a_port_is_a_number_of_16_bits(port: str) -> None:
    """Digits only, and not above 65535."""
    text = f"localhost:{port}"
    message = f"a port is a number from 0 to 65535: {text!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_address(text)


def test_ipv6_without_brackets_is_ambiguous() -> None:
    """The message shows the brackets."""
    with pytest.raises(
        ValueError, match=r"^an IPv6 address stands in brackets, '\[::1\]:9501': '::1:80'$"
    ):
        parse_address("::1:80")


@pytest.mark.parametrize("text", ["unix:", "unix:/a\0b"])
def test_a_unix_address_has_a_path(text: str) -> None:
    """Which is not empty, and has no NUL."""
    message = f"a Unix address is 'unix:/path': {text!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_address(text)


def test_a_unix_path_has_a_limit() -> None:
    """107 bytes pass, and one more does not."""
    path = "/" + "x" * 106
    assert parse_address(f"unix:{path}") == UnixAddress(path)

    with pytest.raises(ValueError, match=r"^a Unix socket's path has at most 107 bytes: 'unix:/x"):
        parse_address(f"unix:{path}x")
