"""A server of two things, the page and the JSON of what is new; no file can be asked for."""

import errno
import gzip
import http
import ipaddress
import pathlib
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sam_jax.live.page import page
from sam_jax.live.watch import Watch
from sam_jax.mistakes import UserMistake
from sam_jax.runs import heartbeat

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class Server(ThreadingHTTPServer):
    """Serves the page of the runs below a folder until it is told to end."""

    daemon_threads = True  # a browser that holds its connection does not hold the end

    def __init__(self, folder: pathlib.Path, host: str, port: int) -> None:
        """Bind the address; `address` says which it is.

        Args:
          folder: of the runs.
          host: the name or number of the interface.
          port: 0 for one that is free.

        Raises:
          UserMistake: the address cannot be had.
        """
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UserMistake(_refusal(host, port, error)) from error
        self.host = host
        self.watch = Watch(folder)
        self.page = page(str(folder))

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def service_actions(self) -> None:
        """Nothing to say is no long silence of a command at work."""
        heartbeat.shown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a browser go that has closed its window; other errors are shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def is_for_us(self, name: str | None) -> bool:
        """Say whether the name under which a browser asks may be ours.

        A page of the network can let a name of its own lead to this machine, and then read what
        its visitor's browser gets from here. Where only this machine is served, numbers and
        "localhost" alone are answered.
        """
        is_here = self.host == "localhost" or _is_loopback(self.host)
        host = urlsplit(f"//{name}").hostname if name else None
        return not is_here or host in (None, "localhost", self.host) or _is_number(host)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "sam_jax", ""

    def do_GET(self) -> None:
        """Answer with the page, with what is new, or with an error."""
        if not self.server.is_for_us(self.headers.get("Host")):
            self.send_error(http.HTTPStatus.FORBIDDEN, "Ask for it as localhost")
            return
        address = urlsplit(self.path)
        if address.path == "/":
            self._send(self.server.page, "text/html; charset=utf-8")
        elif address.path == "/runs.json":
            after = parse_qs(address.query).get("after", ["0"])[0]
            after = int(after) if after.isascii() and after.isdigit() and len(after) < 20 else 0
            self._send(self.server.watch.answer(after).encode(), "application/json")
        else:
            self.send_error(http.HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _send(self, content: bytes, kind: str) -> None:
        packs = "gzip" in self.headers.get("Accept-Encoding", "") and kind == "application/json"
        if packs:
            content = gzip.compress(content, compresslevel=1)
        self.send_response(http.HTTPStatus.OK)
        headers = {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in (headers | ({"Content-Encoding": "gzip"} if packs else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_number(host) and ipaddress.ip_address(host).is_loopback


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use by another program; choose another by --port=N, or "
            "--port=0 for any that is free."
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host must name an address of this machine, such as 127.0.0.1; got {host!r}."
    return f"Port {port} of {host} cannot be had ({error.strerror}); choose another by --port=N."
