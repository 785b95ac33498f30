"""A DNS server on loopback, UDP and TCP on one port, that answers from a table.

    with FakeDns('''
        example.org        MX     10 mx1.example.org
        example.org   60   MX     20 mx2.example.org     # a TTL may stand before the type
        mx1.example.org    A      192.0.2.1
        www.example.org    CNAME  example.org
        signed.example     MX     10 mx.signed.example +ad
        big.example        A      192.0.2.1 +tc          # UDP answers are truncated; TCP has it all
        broken.example     *      SERVFAIL               # for every type
        quiet.example      MX     TIMEOUT
    ''') as dns:
        resolver = Resolver((dns.address,))

Instead of data: SERVFAIL REFUSED FORMERR NOTIMP NXDOMAIN NODATA, TIMEOUT (silence), LAME (empty, no authority),
REFERRAL (NS records only), GARBAGE (not DNS), WRONGID (an answer to another question). Flags: `+ad` the AD bit,
`+tc` truncated over UDP, `+noedns` FORMERR to every query with EDNS, `+bogus` an extended error (RFC 8914) that says
so. A name is NXDOMAIN when no row has it or anything below it. CNAMEs are followed inside the table as a recursive
server would, unless `chase=False`.

It runs in threads, so sync tests, event loops and other processes can all ask it. `asked` lists what came, as
(name, type, "udp" or "tcp"); `set(table)` changes the world.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from dataclasses import dataclass, field

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

WORDS = frozenset({
    "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "NXDOMAIN", "NODATA",
    "TIMEOUT", "LAME", "REFERRAL", "GARBAGE", "WRONGID",
})  # fmt: skip
TTL = 300
#: MINIMUM of every zone's SOA: how long a "no" may be kept (RFC 2308)
NEGATIVE_TTL = 60
MAX_CNAMES = 16


@dataclass
class Row:
    name: dns.name.Name
    rdtype: str
    ttl: int
    data: str
    flags: frozenset[str] = field(default_factory=frozenset)


def parse(table: str) -> list[Row]:
    rows = []
    for line in table.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        flags = frozenset(w[1:] for w in words if w.startswith("+"))
        words = [w for w in words if not w.startswith("+")]
        name = words.pop(0)
        ttl = int(words.pop(0)) if words[0].isdigit() else TTL
        rdtype, data = words[0], " ".join(words[1:])
        rows.append(Row(dns.name.from_text(name), rdtype, ttl, data, flags))
    return rows


class FakeDns:
    def __init__(self, table: str = "", *, chase: bool = True, host: str = "127.0.0.1") -> None:
        self.rows = parse(table)
        self.chase = chase
        self.asked: list[tuple[str, str, str]] = []
        self._udp, self._tcp = _bind(self, host)
        self.address: tuple[str, int] = self._udp.server_address  # type: ignore[assignment]
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            for server in (self._udp, self._tcp)
        ]

    @property
    def patience_s(self) -> float:
        """How long to wait for its answers: short where one of them is none, and a busy machine's time elsewhere."""
        return 0.6 if any(row.data in ("TIMEOUT", "GARBAGE", "WRONGID") for row in self.rows) else 60

    def set(self, table: str) -> None:
        self.rows = parse(table)

    def add(self, table: str) -> None:
        self.rows = self.rows + parse(table)

    def __enter__(self) -> FakeDns:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._udp, self._tcp):
            server.shutdown()
            server.server_close()

    def respond(self, wire: bytes, over: str) -> bytes | None:
        """The octets to send back; None is silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((question.name.to_text(omit_final_dot=True).lower(), rdtype, over))
        response = dns.message.make_response(query, recursion_available=True)
        rows, word, flags = self._walk(question.name, rdtype, response)

        if word == "TIMEOUT":
            return None
        if word == "GARBAGE":
            return b"\x00garbage\xff"
        if "noedns" in flags and query.edns >= 0:
            word = "FORMERR"
        if word in ("SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"):
            response.answer.clear()
            response.set_rcode(dns.rcode.from_text(word))
        elif word in ("LAME", "REFERRAL"):
            response.answer.clear()
            if word == "LAME":
                response.flags &= ~dns.flags.RA
            else:  # passed on by a forwarder that says it recurses
                response.authority.append(dns.rrset.from_text(question.name, TTL, "IN", "NS", "ns.elsewhere.test."))
        elif word in ("NXDOMAIN", "NODATA"):
            if word == "NXDOMAIN":
                response.set_rcode(dns.rcode.NXDOMAIN)
            soa = f"ns.test. hostmaster.test. 1 3600 600 86400 {NEGATIVE_TTL}"
            response.authority.append(dns.rrset.from_text("test.", TTL, "IN", "SOA", soa))
        for row in rows:
            rdata = dns.rdata.from_text("IN", row.rdtype, row.data, origin=dns.name.root, relativize=False)
            rrset = response.find_rrset(
                response.answer, row.name, dns.rdataclass.IN, dns.rdatatype.from_text(row.rdtype), create=True
            )
            rrset.add(rdata, row.ttl)
        if "bogus" in flags:
            response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "signature expired")])
        if "ad" in flags:
            response.flags |= dns.flags.AD
        if "tc" in flags and over == "udp":
            response.answer.clear()
            response.flags |= dns.flags.TC
        if word == "WRONGID":
            response.id = (query.id + 1) % 65536
        return response.to_wire(max_size=65535)

    def _walk(
        self, name: dns.name.Name, rdtype: str, response: dns.message.Message
    ) -> tuple[list[Row], str, frozenset[str]]:
        """The rows of the answer, the word instead of them ("" when there are rows), and their flags."""
        every = self.rows
        flags: frozenset[str] = frozenset()
        for _ in range(MAX_CNAMES):
            here = [r for r in every if r.name == name]
            exact = [r for r in here if r.rdtype in (rdtype, "*")]
            if exact:
                flags |= frozenset().union(*(r.flags for r in exact))
                if exact[0].data in WORDS:
                    return [], exact[0].data, flags
                return [r for r in exact if r.rdtype != "*"], "", flags
            alias = next((r for r in here if r.rdtype == "CNAME"), None)
            if alias is None:
                exists = here or any(r.name.is_subdomain(name) for r in every)
                return [], "NODATA" if exists else "NXDOMAIN", flags
            flags |= alias.flags
            target = dns.name.from_text(alias.data)
            response.answer.append(dns.rrset.from_text(alias.name, alias.ttl, "IN", "CNAME", target.to_text()))
            if not self.chase:
                return [], "", flags
            name = target
        return [], "", flags


class _Udp(socketserver.UDPServer):
    fake: FakeDns


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    fake: FakeDns


class _UdpHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire, sock = self.request
        answer = self.server.fake.respond(wire, "udp")  # type: ignore[attr-defined]
        if answer is not None:
            sock.sendto(answer, self.client_address)


class _TcpHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.settimeout(60)
            size = self.request.recv(2, socket.MSG_WAITALL)
            if len(size) < 2:
                return
            wire = self.request.recv(struct.unpack("!H", size)[0], socket.MSG_WAITALL)
            answer = self.server.fake.respond(wire, "tcp")  # type: ignore[attr-defined]
            if answer is not None:
                self.request.sendall(struct.pack("!H", len(answer)) + answer)


def _bind(fake: FakeDns, host: str) -> tuple[_Udp, _Tcp]:
    """UDP and TCP on one port of the kernel's choice."""
    for _ in range(20):
        udp = _Udp((host, 0), _UdpHandler)
        try:
            tcp = _Tcp(udp.server_address, _TcpHandler)  # type: ignore[arg-type]
        except OSError:  # somebody has the TCP port
            udp.server_close()
            continue
        udp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # a burst is not lost for our slowness
        udp.fake = tcp.fake = fake
        return udp, tcp
    raise RuntimeError("no port is free for both UDP and TCP")
