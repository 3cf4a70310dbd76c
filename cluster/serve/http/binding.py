"""Where the API may listen, and by which certificate; checked before anything is started."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address

from cluster.serve.http.tokens import Tokens
from cluster.vocabulary.errors import ClusterError

BACKLOG = 2_048
PORT_MAX = 65_535


def read_bind(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; raises ClusterError for other texts."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > PORT_MAX:
        raise ClusterError(f"{text!r} is no address to listen at; write it as 127.0.0.1:8000")
    return host, int(port)


def url_of(host: str, port: int, *, is_tls: bool) -> str:
    """Where a server that listens there is found."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at this host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(
    host: str,
    tokens: Tokens | None,
    certfile: str | None,
    keyfile: str | None,
    warn: Callable[[str], None],
) -> None:
    """Refuse to listen beyond this machine without tokens, and warn of tokens in clear text.

    Raises:
        ClusterError: there are no tokens, or the certificate and its key can't be used.
    """
    if (certfile is None) != (keyfile is None):
        raise ClusterError("TLS takes both a certificate (--cert) and its key (--key)")
    if certfile is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
        except (OSError, ssl.SSLError) as error:
            raise ClusterError(f"TLS can't use {certfile} and {keyfile}: {error}") from None
    if is_loopback(host):
        return
    if tokens is None:
        raise ClusterError(
            f"{host} can be reached from other machines, and without tokens anyone there could "
            "use this server: give it --tokens FILE (`perfkit serve token NAME` makes one), or "
            "let it listen at 127.0.0.1"
        )
    if certfile is None:
        warn("tokens travel in clear text without TLS: --cert and --key add it, or a proxy does")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ClusterError with the reason if there can't be one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise ClusterError(f"cannot listen at {host}:{port}: {reason}") from None
