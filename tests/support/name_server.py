"""A name server on the test's own loop: UDP and TCP on one loopback port."""

from __future__ import annotations

import socket
from functools import partial

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from forkproxy.net.poller import READ


class NameServer:
    """``records[(name, "A")] = (ttl, [address, …])``; ``rcodes[name]`` answers with an error; ``silent`` names get no answer.

    ``asked`` lists (transport, name, record type) in order.
    """

    def __init__(self, loop):
        self.loop = loop
        self.records = {}
        self.aliases = {}
        self.rcodes = {}
        self.silent = set()
        self.truncated = set()
        self.forged_first = set()
        self.asked = []
        self._open = []
        while True:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._udp.bind(("127.0.0.1", 0))
            self.address = self._udp.getsockname()
            try:
                self._tcp = socket.create_server(self.address)
                break
            except OSError:  # the port is somebody's over TCP: take another
                self._udp.close()
        self._tcp.setblocking(False)
        loop.register(self._udp.fileno(), READ, self._on_udp)
        loop.register(self._tcp.fileno(), READ, self._on_accept)

    def close(self):
        for sock in (self._udp, self._tcp, *self._open):
            self.loop.unregister(sock.fileno())
            sock.close()

    def names(self, transport=None):
        return [(name, kind) for how, name, kind in self.asked if transport in (None, how)]

    def _on_udp(self, mask):
        wire, peer = self._udp.recvfrom(65535)
        for answer in self._answers(wire, "udp"):
            self._udp.sendto(answer, peer)

    def _on_accept(self, mask):
        sock, _ = self._tcp.accept()
        self._open.append(sock)
        buffer = bytearray()

        def on_read(mask):
            data = sock.recv(65535)
            buffer.extend(data)
            if not data:
                self.loop.unregister(sock.fileno())
            elif len(buffer) >= 2 + int.from_bytes(buffer[:2]):
                for answer in self._answers(bytes(buffer[2:]), "tcp"):
                    framed = len(answer).to_bytes(2) + answer
                    sock.send(framed[:5])  # in two pieces, as TCP may
                    self.loop.call_later(0.001, partial(sock.send, framed[5:]))

        self.loop.register(sock.fileno(), READ, on_read)

    def _answers(self, wire, transport):
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(), question.rdtype.name
        self.asked.append((transport, name, kind))
        if name in self.silent:
            return
        response = dns.message.make_response(query)
        if name in self.forged_first:
            forged = dns.message.make_response(query)
            forged.id ^= 1
            forged.answer.append(dns.rrset.from_text(name, 5, "IN", "A", "6.6.6.6"))
            yield forged.to_wire()
            yield b"garbage"
        if name in self.rcodes:
            response.set_rcode(self.rcodes[name])
        elif name in self.truncated and transport == "udp":
            response.flags |= dns.flags.TC
        else:
            while name in self.aliases:
                ttl, alias = self.aliases[name]
                response.answer.append(dns.rrset.from_text(name, ttl, "IN", "CNAME", alias))
                name = alias
            if (name, kind) in self.records:
                ttl, addresses = self.records[(name, kind)]
                response.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, *addresses))
            elif not any(known == name for known, _ in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
        yield response.to_wire(want_shuffle=False)
