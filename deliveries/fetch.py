"""HTTP to addresses that somebody else chose: webhooks, MTA-STS policies, remote attachments.

    check_url(url)                                    when an endpoint is created: the form alone
    fetched = await fetch("POST", url, content=...)   each time: resolve once, check, connect to exactly that address

What keeps a user's URL from reaching the inside of our network (server-side request forgery):
- http and https only; no userinfo, no odd IPv4 spellings (`0x7f.1`, `2130706433`, `0177.0.0.1`), no port of a mail,
  database or other line-based service;
- the name is resolved once; where any one of its addresses is not public, nothing is connected at all;
- the connection goes to the very address that was checked (a second look-up could answer otherwise), with Host and
  SNI of the name, so certificates are verified as usual;
- redirects are answers, never followed; proxies and .netrc of the environment are ignored;
- the whole exchange has one time limit and the body a size limit, so a slow or endless answer ends;
- a connection that is used again (`keep`) was checked for the same name and port, half a minute ago at most.

Plain http is allowed, as other senders of webhooks do: what must not be read by others belongs on https, and the
signature guards the content either way. MTA-STS asks for https by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

import h11
import idna

from deliveries.errors import AddressRefused, FetchFailed
from deliveries.http11 import Kept as Kept
from deliveries.http11 import Line

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
#: (host, port) → IP literals; OSError where there are none
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

TIMEOUT_S = 15.0
MAX_OCTETS = 65_536
#: longer ones serve nobody and every proxy on the way refuses them
MAX_URL_OCTETS = 2_048
#: addresses of one name that are tried before giving up
MAX_ADDRESSES = 3

#: IANA special-purpose registries (RFC 6890): every IPv4 block that is not the public Internet
_NOT_PUBLIC_V4 = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
)))  # fmt: skip
#: the only IPv6 block that is assigned for global use (RFC 4291 §2.4) …
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
#: … and what is special inside it: IETF protocols with Teredo and ORCHID, documentation, 6to4
_NOT_PUBLIC_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
#: RFC 6052: an IPv4 address behind NAT64; judged by the address inside
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

#: services that read lines and would take an HTTP request for their own commands, and databases
_PORTS_REFUSED = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 138, 139, 143, 161, 162, 179, 389, 427, 445, 465, 512, 513, 514, 515, 526,
    530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049,
    2375, 2379, 2525, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 5984, 6000, 6379, 6566, 6665, 6666, 6667,
    6668, 6669, 6697, 9042, 9200, 9300, 10080, 10250, 11211, 27017,
})  # fmt: skip
#: quote() leaves printable ASCII as the user wrote it and encodes the rest
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_PORTS = {"http": 80, "https": 443}
#: WHATWG URL §3.5: a last label of digits or 0x… makes the host a number, however it is spelt
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)\Z")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
#: names that mean this machine or this network by definition (RFC 6761, 6762, 8375)
_LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")


@dataclass(frozen=True, slots=True)
class Fetched:
    """One answer. `headers` keep order and doubles, names in lower case; `body` is as sent, never decompressed."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool  #: the body went on beyond `max_octets` and was cut there
    address: str  #: the IP literal that was connected to
    elapsed_ms: int

    def header(self, name: str) -> str:
        """The first header of that name; empty where there is none."""
        return next((value for key, value in self.headers if key == name.lower()), "")


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    host: str  #: A-label or IP literal without brackets
    port: int
    authority: str  #: what stands in the Host header
    target: bytes  #: path and query, put together again from the parts that were checked


#: where one cloud tells a machine its secrets by IPv6
_METADATA_V6 = ipaddress.ip_address("fd00:ec2::254")


@lru_cache(maxsize=20_000)  # asked again for every hop of every mail
def not_public(address: IpAddress | str) -> str | None:
    """Why an address is not one of the public Internet (`127.0.0.1 is not a public address`); None where it is."""
    ip = ipaddress.ip_address(address) if isinstance(address, str) else address
    inner: IpAddress = ip
    if isinstance(inner, ipaddress.IPv6Address) and inner in _NAT64:
        inner = ipaddress.IPv4Address(int(inner) & 0xFFFFFFFF)
    if isinstance(inner, ipaddress.IPv4Address):
        bad = any(inner in net for net in _NOT_PUBLIC_V4)
    else:  # mapped (::ffff:0:0/96), compatible, site-local, unique-local, link-local, multicast: outside 2000::/3
        bad = inner.scope_id is not None or inner not in _PUBLIC_V6 or any(inner in net for net in _NOT_PUBLIC_V6)
    return f"{ip} is not a public address" if bad else None


def _of_the_host(address: IpAddress | str) -> str | None:
    """Why an address is refused in labs too: link-local ones (RFC 3927, RFC 4291 §2.5.6) are where clouds tell a
    machine its secrets. None where it is another."""
    ip = ipaddress.ip_address(address) if isinstance(address, str) else address
    inner = ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip
    return f"{ip} is a link-local address" if inner.is_link_local or inner == _METADATA_V6 else None


def check_url(url: str, allow_private: bool = False) -> None:
    """Whether the form of `url` may ever be fetched; no look-up. AddressRefused says why not."""
    _target(url, allow_private)


async def fetch(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    timeout_s: float = TIMEOUT_S,
    max_octets: int = MAX_OCTETS,
    allow_private: bool = False,
    ca_file: str | None = None,
    resolve: Resolve | None = None,
    keep: Kept | None = None,
) -> Fetched:
    """One request. Any status is an answer, 3xx too; a body beyond `max_octets` is cut and `truncated`.

    `timeout_s` bounds everything from the look-up to the last octet. `allow_private` is for labs: it lifts the check
    of addresses, but for link-local ones, and nothing else. `ca_file` is trusted instead of the system's authorities.
    With `keep` a connection may be used again; where a kept one turns out to have been closed, the request is sent
    anew, so it must be one that may arrive twice.
    Raises AddressRefused (before any connection) and FetchFailed (DNS, connect, TLS, protocol, time).
    """
    started = time.monotonic()
    target = _target(url, allow_private)
    carried = None if not content and method in ("GET", "HEAD") else content
    key = (target.scheme, target.host, target.port, allow_private, ca_file)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                kept = keep.take(key) if keep else None
                line = kept or await _connect(target, allow_private, resolve or _system_resolve, timeout_s, ca_file)
                try:
                    answer = await line.ask(method, target.target, _sent(target, headers or {}), carried, max_octets)
                    break
                except (h11.RemoteProtocolError, OSError):
                    if kept is None or line.heard:
                        raise
                    # RFC 9112 §9.5: it was closed while nobody asked
                finally:
                    if keep:
                        keep.give(key, line)
                    else:
                        line.close()
    except TimeoutError:
        raise FetchFailed(f"{target.host}: no complete answer within {timeout_s:g} s") from None
    except (h11.ProtocolError, OSError) as e:
        raise FetchFailed(f"{target.host}: {_said(e)}") from e
    return Fetched(
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        truncated=answer.truncated,
        address=line.address,
        elapsed_ms=round((time.monotonic() - started) * 1000),
    )


async def _connect(
    target: _Target, allow_private: bool, resolve: Resolve, timeout_s: float, ca_file: str | None
) -> Line:
    """To a checked address of the name: the single door of this module to the network."""
    tls = _tls(ca_file) if target.scheme == "https" else None
    refused: Exception | None = None
    address = ""
    for address in (await _addresses(target, allow_private, resolve))[:MAX_ADDRESSES]:
        try:
            # so that a dead first one leaves time for the next
            async with asyncio.timeout(timeout_s / MAX_ADDRESSES):
                reader, writer = await asyncio.open_connection(
                    address, target.port, ssl=tls, server_hostname=target.host if tls else None
                )
            return Line(reader, writer, address)
        except ssl.SSLError:
            raise  # it is there, and not who it should be
        except OSError as e:
            refused = e
    why = str(refused) or "no answer in time"
    raise ConnectionError(f"cannot connect to {address} port {target.port}: {why}")


async def _addresses(target: _Target, allow_private: bool, resolve: Resolve) -> list[str]:
    host, port = target.host, target.port
    try:
        found = [host] if _literal(host) else list(await resolve(host, port))
    except OSError as e:
        raise ConnectionError(f"the name cannot be resolved: {e.strerror or e}") from e
    addresses = list(dict.fromkeys(found))
    if not addresses:
        raise ConnectionError("the name has no address")
    # one inside address among public ones is refused too: nobody publishes that by accident
    for address in addresses:
        if why := _of_the_host(address) if allow_private else not_public(address):
            raise AddressRefused(f"{host}: {why}")
    return addresses


async def _system_resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def _target(url: str, allow_private: bool) -> _Target:
    if len(url) > MAX_URL_OCTETS:
        raise AddressRefused(f"the URL is longer than {MAX_URL_OCTETS} characters")
    # parsers disagree about these, and a disagreement is what an attacker needs
    if any(c <= " " or c == "\x7f" or c == "\\" for c in url):
        raise AddressRefused("the URL has a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise AddressRefused(f"not a URL: {e}") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise AddressRefused("only http and https URLs are fetched")
    if "@" in parts.netloc:
        raise AddressRefused("a URL must not carry a user name or password")
    port = _PORTS[scheme] if port is None else port
    if port == 0 or port in _PORTS_REFUSED:
        raise AddressRefused(f"port {port} is not one for HTTP")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    ip = _literal(host)
    if ip is not None and (why := _of_the_host(ip) if allow_private else not_public(ip)):
        raise AddressRefused(why)
    local = "." not in host or any(host == n or host.endswith("." + n) for n in _LOCAL_NAMES)
    if ip is None and local and not allow_private:
        raise AddressRefused(f"{host} is a name of this machine or network")
    shown = f"[{host}]" if isinstance(ip, ipaddress.IPv6Address) else host
    authority = shown if port == _PORTS[scheme] else f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_ASCII)
    target = path + (f"?{quote(parts.query, safe=_ASCII)}" if parts.query else "")
    return _Target(scheme, host, port, authority, target.encode())


def _host(text: str, bracketed: bool) -> str:
    """The host in its one spelling: an IP literal or a lower-case A-label name without a final dot."""
    if bracketed:
        try:
            ip = ipaddress.IPv6Address(text)
        except ValueError:
            raise AddressRefused(f"{text!r} is no IPv6 address") from None
        if ip.scope_id is not None:
            raise AddressRefused("an address with a zone is of this machine only")
        return str(ip)
    if not text.isascii():
        try:
            # UTS #46 folds ① and full-width digits and dots to ASCII before anything is judged
            text = idna.encode(text, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise AddressRefused(f"{text!r} is no host name") from None
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.match(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))  # strict: four decimals without leading zeros
        except ValueError:
            raise AddressRefused(f"{text!r} is a number in disguise; write an IPv4 address as a.b.c.d") from None
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise AddressRefused(f"{text!r} is no host name")
    return name


def _literal(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _sent(target: _Target, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    given = {key.lower(): value for key, value in headers.items()}
    ours = {"host": target.authority, "user-agent": "mailapi", "accept": "*/*", "accept-encoding": "identity"}
    return list((ours | given).items())


def _said(error: BaseException) -> str:
    """The innermost reason, in one line: `certificate verify failed: …` rather than a class name."""
    while not str(error) and (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


@lru_cache(maxsize=8)
def _tls(ca_file: str | None) -> ssl.SSLContext:
    # building one costs 25 ms: shared by all requests of the process
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context
