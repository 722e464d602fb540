"""Attempts to reach what no rule names, each with the reason that must be recorded.

The policy of policies.py allows (among others) api.example.com on 443, names below example.org on 443 and 10.1.0.0/16 on 5432. An
attempt is a host and port as a program would give them to a proxy, a DNS question, a loopback address and port, or the first bytes
on a connection that was allowed for api.example.com port 443.
"""

from dataclasses import dataclass

from tests.egress.hellos import ECH, NAME, TLS13, alpn, body, extension, hello, message, record, records, sni
from tests.egress.packets import ANY, HTTPS, SRV, SVCB, TXT, ask, opt, packet, question


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a CONNECT or SOCKS5 request asks for."""

    host: str
    port: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a resolver is asked."""

    data: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loopback:
    """What is connected to without asking the resolver: `address` as it is written."""

    address: str
    port: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What is sent first, all of it."""

    data: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent to the explicit proxy, all of it, with a ClientHello behind it that would be passed on if the request were."""

    data: bytes
    reason: str


HOSTS = tuple(
    Host(host=host, port=port, reason=reason)
    for reason, port, hosts in (
        # Names that look like an allowed one.
        ("name_not_allowed", 443, (
            "api.example.com.evil.test", "evil.test", "example.com", "example.org", "evilexample.org", "evil-example.org",
            "x.api.example.com", "api.example.co", "api.example.comm", "apiexample.com", "www.example.org.evil.test", "localhost",
            "LOCALHOST.", "ip-10-1-0-1.ec2.internal", "instance-data.ec2.internal", "metadata.google.internal", "10-1-0-1.nip.io",
            "127.0.0.1.nip.io", "169.254.169.254.nip.io", "xn--pi-6kc.example.com", "xn--exmple-4nf.org", "api.xn--example-9ya.com",
        )),
        # Text that some other reader takes for an allowed name.
        ("not_a_name", 443, (
            "api.example.com..", ".api.example.com", "api..example.com", "api.example.com\0", "api.example.com\0.evil.test",
            "evil.test\0.example.org", "api.example.com\n", "\tapi.example.com", " api.example.com", "api.example.com ",
            "api.example.com/", "api.example.com/.example.org", "api.example.com#.example.org", "api.example.com?.example.org",
            "evil.test#.example.org", "evil.test/.example.org", "user@api.example.com", "evil.test\\.example.org",
            "evil.test%2eexample.org", "evil.test%00.example.org", "*.example.org", "_x.example.org", "-x.example.org",
            "x-.example.org", "a,b.example.org", "b\xfccher.example", "\u0430pi.example.com", "api.ex\u0430mple.com",
            "api\u3002example\u3002com", "api\uff0eexample\uff0ecom", "\uff41pi.example.com", "api.example.c\u03bfm",
            "a\u00adpi.example.com", "api.example.com\u200b", "api.example\u2024com", "\u24d0pi.example.com", "api.\u212bxample.com",
            "evil.test\r\n.example.org", "",  ".",
        )),
        # Addresses that no rule has.
        ("address_not_allowed", 5432, (
            "169.254.169.254", "127.0.0.1", "127.64.0.1", "0.0.0.0", "10.0.0.1", "10.2.0.1", "192.168.0.1", "255.255.255.255",
            "224.0.0.1", "::1", "[::1]", "fe80::1", "fd00:ec2::254", "[FD00:EC2::254]", "2001:db8:2::1", "ff02::1",
        )),
        # The allowed 10.1.0.1 and the metadata service in the spellings of inet_aton, URLs and IPv6.
        ("address_spelling", 5432, (
            "167837697", "0x0a010001", "0xa.1.0.1", "012.1.0.1", "012.01.00.01", "10.1.1", "10.65537", "10.1.0.1.", "10.1.0.01",
            "0xA9FEA9FE", "2852039166", "0251.0376.0251.0376", "169.254.43518", "127.1", "0", "0x7f.1", "10.1.0.256", "1e1.0.0.1",
            "[10.1.0.1]", "10.1.0.1:80", "[::1%lo]", "fe80::1%eth0", "[::1", "::1]", "1:2", ":::1", "[]", "0x", "10.1.0.0x1",
            "evil.test\r\nHost: x.example.org", "api.example.com:443",
        )),
        ("address_embeds_ipv4", 5432, (
            "::ffff:10.1.0.1", "::ffff:a01:1", "[::ffff:169.254.169.254]", "::10.1.0.1", "64:ff9b::10.1.0.1", "2002:a01:1::1",
            "2001:0:a01:1::", "64:ff9b:1::a01:1", "::ffff:0:10.1.0.1", "::FFFF:7F00:1",
        )),
        ("name_too_long", 443, ("a." * 130 + "example.org", "a" * 5000 + ".example.org")),
    )
    for host in hosts
)  # fmt: skip

PORTS = tuple(
    Host(host=host, port=port, reason=reason)
    for host, port, reason in (
        ("api.example.com", 80, "port_not_allowed"),
        ("api.example.com", 22, "port_not_allowed"),
        ("api.example.com", 442, "port_not_allowed"),
        ("api.example.com", 8442, "port_not_allowed"),
        ("www.example.org", 8443, "port_not_allowed"),
        ("10.1.0.1", 443, "port_not_allowed"),
        ("apex.example", 8004, "port_not_allowed"),
        ("api.example.com", 0, "port_out_of_range"),
        ("api.example.com", 65979, "port_out_of_range"),
        ("api.example.com", -65093, "port_out_of_range"),
        ("10.1.0.1", 70968, "port_out_of_range"),
    )
)

QUESTIONS = (
    *(Asked(data=ask(name), reason="name_not_allowed") for name in ("evil.test", "example.org", "data.evil.test", "localhost")),
    *(Asked(data=ask("api.example.com", kind), reason="type_not_allowed") for kind in (TXT, SRV, HTTPS, SVCB, ANY)),
    Asked(data=ask("api.example.com", 1, 3), reason="class_not_allowed"),
    Asked(data=packet(b"\x0bapi.example\x03com\0\0\1\0\1"), reason="not_a_name"),
    Asked(data=packet(b"\x09evil.test\x07example\x03org\0\0\1\0\1"), reason="not_a_name"),
    Asked(data=packet(b"\x0aevil.test\0\x07example\x03org\0\0\1\0\1"), reason="not_a_name"),
    Asked(data=ask("10.1.0.1"), reason="name_is_address"),
    Asked(data=ask("2852039166"), reason="name_is_address"),
    Asked(data=packet(question(), question("evil.test"), counts=(2, 0, 0, 0)), reason="dns_counts"),
    Asked(data=packet(question("evil.test"), question(), counts=(1, 0, 0, 0)), reason="trailing_bytes"),
    Asked(data=packet(question(), b"\1a" + opt()), reason="dns_edns"),
    Asked(data=packet(b"\xc0\x12\0\1\0\1\x04evil\x04test\0"), reason="dns_pointer"),
    Asked(data=ask("api.example.com", flags=0x2800), reason="dns_opcode"),
    Asked(data=ask("api.example.com", flags=0x8180), reason="dns_response"),
)

LOOPBACKS = tuple(
    Loopback(address=address, port=port, reason=reason)
    for address, port, reason in (
        ("127.0.0.1", 443, "address_without_name"),
        ("127.64.0.0", 443, "address_without_name"),
        ("127.64.255.1", 443, "address_without_name"),
        ("127.127.255.255", 443, "address_without_name"),
        ("127.128.0.1", 443, "address_without_name"),
        ("127.64.0.1", 80, "port_not_allowed"),
        ("127.64.0.1", 5432, "port_not_allowed"),
    )
)

FIRSTS = (
    First(data=hello(sni(b"evil.test")), reason="sni_mismatch"),
    First(data=hello(sni(b"www.example.org")), reason="sni_mismatch"),
    First(data=records(message(body(sni(b"evil.test"))), 1), reason="sni_mismatch"),
    First(data=hello(alpn(NAME), sni(b"api.example.com.evil.test")), reason="sni_mismatch"),
    First(data=hello(TLS13), reason="sni_missing"),
    First(data=hello(sni(NAME), extension(ECH, bytes(64))), reason="sni_encrypted"),
    First(data=hello(sni(NAME), extension(0xFFCE, bytes(64))), reason="sni_encrypted"),
    First(data=hello(sni(b"evil.test", NAME)), reason="two_names"),
    First(data=hello(sni(NAME, b"evil.test")), reason="two_names"),
    First(data=hello(sni(NAME), sni(b"evil.test")), reason="extension_twice"),
    First(data=hello(sni(b"evil.test\0" + NAME)), reason="bad_name"),
    First(data=hello(sni(NAME + b".")), reason="bad_name"),
    First(data=hello(sni(b"10.1.0.1")), reason="bad_name"),
    First(data=record(message(body(sni(NAME))) + message(body(sni(b"evil.test")))), reason="trailing_bytes"),
    First(data=record(message(body(sni(NAME)))[:40]) + record(b"", kind=22) + record(b"x"), reason="record_size"),
    First(data=record(b"\1\0", kind=21) + hello(sni(NAME)), reason="not_tls"),
    First(data=b"GET http://evil.test/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", reason="not_tls"),
    First(data=b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n", reason="not_tls"),
    First(data=b"SSH-2.0-x\r\n", reason="not_tls"),
    First(data=b"\5\1\0", reason="not_tls"),
    First(data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", reason="not_tls"),
    First(data=record(message(body(sni(NAME)), 2)), reason="not_client_hello"),
    First(data=hello(sni(NAME))[:60], reason="truncated"),
)


def _connect(target: bytes, *fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"CONNECT " + target + b" " + version + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def _socks(request: bytes, *, greeting: bytes = b"\5\1\0") -> bytes:
    return greeting + request


_ALLOWED = b"api.example.com:443"
_TO_ALLOWED = b"\3\x0fapi.example.com\1\xbb"

CONNECTS = (
    *(Request(data=_connect(target), reason=reason) for target, reason in (
        (b"evil.test:443", "name_not_allowed"),
        (b"169.254.169.254:5432", "address_not_allowed"),
        (b"[fd00:ec2::254]:443", "address_not_allowed"),
        (b"127.64.0.1:443", "address_not_allowed"),
        (b"localhost:9999", "name_not_allowed"),
        (b"2852039166:80", "address_spelling"),
        (b"0x7f.1:9999", "address_spelling"),
        (b"[::ffff:10.1.0.1]:5432", "address_embeds_ipv4"),
        (b"[::1%25lo]:5432", "address_spelling"),
        (b"api.example.com:80", "port_not_allowed"),
        (b"api.example.com:0", "port_out_of_range"),
        (b"api.example.com:65979", "port_out_of_range"),
        (b"api.example.com@evil.test:443", "not_a_name"),
        (b"evil.test#.example.org:443", "not_a_name"),
        (b"evil.test/.example.org:443", "not_a_name"),
        (b"evil.test%00.example.org:443", "not_a_name"),
        (b":443", "not_a_name"),
        (b"2001:db8:1::5:443", "connect_target"),
        (b"user:evil.test@api.example.com:443", "connect_target"),
        (b"api.example.com", "connect_target"),
        (b"api.example.com:", "connect_target"),
        (b"api.example.com:443:80", "connect_target"),
        (b"api.example.com:+443", "connect_target"),
        (b"api.example.com:0x1bb", "connect_target"),
        (b"api.example.com:000443", "connect_target"),
        (b"/", "connect_target"),
        (b"https://api.example.com:443", "connect_target"),
        (b"https://api.example.com:443/", "connect_target"),
        (b"[api.example.com]:443", "address_spelling"),
        (b"[]:443", "connect_target"),
    )),
    *(Request(data=data, reason=reason) for data, reason in (
        (_connect(b"evil.test:443", b"Host: api.example.com:443"), "name_not_allowed"),
        (_connect(b"evil.test:443", b"Host: " + _ALLOWED, b"X-Forwarded-Host: " + _ALLOWED), "name_not_allowed"),
        (_connect(b"api.ex\xd0\xb0mple.com:443"), "connect_head"),
        (_connect(_ALLOWED + b" evil.test:443"), "connect_head"),
        (_connect(_ALLOWED, version=b"HTTP/2.0"), "connect_head"),
        (_connect(_ALLOWED, version=b"HTTP/0.9"), "connect_head"),
        (_connect(_ALLOWED, version=b"http/1.1"), "connect_head"),
        (_connect(b"\t" + _ALLOWED), "connect_head"),
        (b"CONNECT  " + _ALLOWED + b" HTTP/1.1\r\n\r\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b"\r\n\r\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b" HTTP/1.1\n\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b" HTTP/1.1\r\n Host: x\r\n\r\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b" HTTP/1.1\r\nX: a\r\n b\r\n\r\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b" HTTP/1.1\r\nX : a\r\n\r\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b" HTTP/1.1\r\nX: a\0b\r\n\r\n", "connect_head"),
        (b"CONNECT " + _ALLOWED + b" HTTP/1.1\r\nX: a\rEvil: b\r\n\r\n", "connect_head"),
        (b"CONNECT evil.test\0:443 HTTP/1.1\r\n\r\n", "connect_head"),
        (_connect(_ALLOWED, b"Content-Length: 5"), "connect_body"),
        (_connect(_ALLOWED, b"Content-Length: 0", b"content-length: 00"), "connect_body"),
        (_connect(_ALLOWED, b"Transfer-Encoding: chunked"), "connect_body"),
        (_connect(_ALLOWED, b"transfer-encoding: identity"), "connect_body"),
        (b"GET https://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "connect_method"),
        (b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n", "connect_method"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", "connect_method"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "connect_head"),
        (b"CONNECTX " + _ALLOWED + b" HTTP/1.1\r\n\r\n", "connect_method"),
        (_connect(_ALLOWED, b"X: " + b"a" * 9000), "connect_too_large"),
        (_connect(b"a" * 9000 + b".example.org:443"), "connect_too_large"),
    )),
)  # fmt: skip

SOCKS = tuple(
    Request(data=data, reason=reason)
    for data, reason in (
        (_socks(b"\5\1\0\3\x09evil.test\1\xbb"), "name_not_allowed"),
        (_socks(b"\5\1\0\3\x10api.example.com\0\1\xbb"), "not_a_name"),
        (_socks(b"\5\1\0\3\x16evil.test\0.example.org\1\xbb"), "not_a_name"),
        (_socks(b"\5\1\0\3\x0d169.254.1.254\0\x50"), "address_not_allowed"),
        (_socks(b"\5\1\0\3\x0a2852039166\0\x50"), "address_spelling"),
        (_socks(b"\5\1\0\3\x10b\xc3\xbccher.example...\1\xbb"), "not_a_name"),
        (_socks(b"\5\1\0\3\x0fapi.example.com\0\x50"), "port_not_allowed"),
        (_socks(b"\5\1\0\3\x0fapi.example.com\0\0"), "port_out_of_range"),
        (_socks(b"\5\1\0\1\xa9\xfe\xa9\xfe\0\x50"), "address_not_allowed"),
        (_socks(b"\5\1\0\1\x7f\0\0\1\x27\x0f"), "address_not_allowed"),
        (_socks(b"\5\1\0\1\x7f\x40\0\1\1\xbb"), "address_not_allowed"),
        (_socks(b"\5\1\0\4" + bytes(15) + b"\1\1\xbb"), "address_not_allowed"),
        (_socks(b"\5\1\0\4" + bytes(10) + b"\xff\xff\x0a\1\0\1\x15\x38"), "address_embeds_ipv4"),
        (_socks(b"\5\1\0\4\xfd\0\x0e\xc2" + bytes(10) + b"\2\x54\0\x50"), "address_not_allowed"),
        (_socks(b"\5\2\0" + _TO_ALLOWED), "socks_command"),
        (_socks(b"\5\3\0" + _TO_ALLOWED), "socks_command"),
        (_socks(b"\5\xf0\0" + _TO_ALLOWED), "socks_command"),
        (_socks(b"\5\1\0\2" + _TO_ALLOWED[1:]), "socks_address"),
        (_socks(b"\5\1\0\3\0\1\xbb"), "socks_address"),
        (_socks(b"\5\1\1" + _TO_ALLOWED), "socks_version"),
        (_socks(b"\4\1\0" + _TO_ALLOWED), "socks_version"),
        (_socks(b"\5\1\0" + _TO_ALLOWED, greeting=b"\5\1\2"), "socks_method"),
        (_socks(b"\5\1\0" + _TO_ALLOWED, greeting=b"\5\0"), "socks_method"),
        (_socks(b"\5\1\0" + _TO_ALLOWED, greeting=b"\5\2\1\x80"), "socks_method"),
        (b"\4\1\1\xbb\x0a\1\0\1user\0", "socks_version"),
        (b"\4\1\1\xbb\0\0\0\1user\0api.example.com\0", "socks_version"),
        (b"\x16\3\1", "socks_version"),
        (b"\0\x1d\1\0\0\1", "socks_version"),
        (b"connect api.example.com:443 HTTP/1.1\r\n\r\n", "socks_version"),
        (b"\r\nCONNECT api.example.com:443 HTTP/1.1\r\n\r\n", "socks_version"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "socks_version"),
    )
)
