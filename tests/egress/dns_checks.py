"""What an allow-listing resolver is asked, and what it must answer: code (None: nothing), addresses, and the reason in the record."""

from dataclasses import dataclass

from tests.egress.packets import (
    AAAA,
    ANY,
    AXFR,
    CAA,
    CNAME,
    HTTPS,
    IXFR,
    MX,
    NAPTR,
    NS,
    PTR,
    SOA,
    SRV,
    SVCB,
    TXT,
    A,
    ask,
    labels,
    opt,
    packet,
    question,
)  # fmt: skip

NOERROR, FORMERR, SERVFAIL, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 4, 5, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`addresses` are how many the answer has. With `link_down` the link to the parent is down."""

    what: str
    data: bytes
    code: int | None
    reason: str
    addresses: int = 0
    link_down: bool = False


def allowed(what: str, data: bytes) -> Check:
    return Check(what=what, data=data, code=NOERROR, reason="allowed", addresses=1)


def refused(what: str, data: bytes, reason: str = "name_not_allowed") -> Check:
    return Check(what=what, data=data, code=REFUSED, reason=reason)


def malformed(what: str, data: bytes, reason: str, code: int | None = FORMERR) -> Check:
    return Check(what=what, data=data, code=code, reason=reason)


LABEL63 = "a" * 63
LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 49, "example.org"])
assert len(labels(LONGEST)) == 255

NAMES = (
    allowed("an exact name", ask("api.example.com")),
    allowed("in capitals", ask("API.EXAMPLE.COM")),
    allowed("in mixed case, as 0x20 resolvers ask", ask("aPi.ExAmPlE.cOm")),
    allowed("one label below a suffix", ask("www.example.org")),
    allowed("many labels below a suffix", ask("a.b.c.d.e.f.example.org")),
    allowed("below a suffix in capitals", ask("WWW.EXAMPLE.ORG")),
    allowed("a suffix with its apex", ask("apex.example")),
    allowed("below a suffix with its apex", ask("www.apex.example")),
    allowed("an A-label", ask("xn--bcher-kva.example")),
    allowed("an A-label in capitals", ask("XN--BCHER-KVA.EXAMPLE")),
    allowed("a label of 63", ask(f"{LABEL63}.example.org")),
    allowed("a name of 255 octets", ask(LONGEST)),
    allowed("a name on other ports than 443", ask("db.example.net")),
    allowed("a label of digits below a suffix", ask("1.example.org")),
    allowed("an address in front of a suffix", ask("10.0.0.1.example.org")),
    refused("another name", ask("example.net")),
    refused("a name above", ask("example.com")),
    refused("the apex where it is not included", ask("example.org")),
    refused("a name below an exact one", ask("x.api.example.com")),
    refused("a name that ends in the letters of a suffix", ask("evilexample.org")),
    refused("a name with the suffix inside", ask("www.example.org.evil.test")),
    refused("a name with the suffix in front", ask("example.org.evil.test")),
    refused("the top of a suffix", ask("org")),
    refused("a name one letter longer", ask("api.example.comm")),
    refused("a name one letter shorter", ask("pi.example.com")),
    refused("a name with a hyphen for a dot", ask("api-example.com")),
    refused("localhost", ask("localhost")),
    refused("the metadata service of another cloud", ask("metadata.google.internal")),
    refused("the private name of an instance", ask("ip-10-0-0-1.ec2.internal")),
    refused("another A-label", ask("xn--bcher-kvb.example")),
    refused("the root", ask("."), "not_a_name"),
    refused("a label with an underscore", ask("_tcp.example.org"), "not_a_name"),
    refused("a label with a space", ask("a b.example.org"), "not_a_name"),
    refused("a label that starts with a hyphen", ask("-a.example.org"), "not_a_name"),
    refused("a label that ends with a hyphen", ask("a-.example.org"), "not_a_name"),
    refused("a label with a star", ask("*.example.org"), "not_a_name"),
    refused("a label with a zero byte", ask("a\0.example.org"), "not_a_name"),
    refused("an allowed name and a zero byte", ask("api.example.com\0"), "not_a_name"),
    refused("a dot inside a label", packet(b"\x0bapi.example\x03com\0\0\1\0\1"), "not_a_name"),
    refused("the whole name in one label", packet(b"\x0fapi.example.com\0\0\1\0\1"), "not_a_name"),
    refused("a suffix in one label", packet(b"\x0fwww.example.org\0\0\1\0\1"), "not_a_name"),
    refused("letters that are not ASCII", ask("b\xfccher.example"), "not_a_name"),
    refused("UTF-8 of a name that is a rule", packet(labels("b\xc3\xbccher.example") + b"\0\1\0\1"), "not_a_name"),
    refused("a backslash", ask("api\\.example.com"), "not_a_name"),
    refused("a newline", ask("api.example.com\n"), "not_a_name"),
    refused("a slash", ask("a/b.example.org"), "not_a_name"),
    refused("an at sign", ask("a@b.example.org"), "not_a_name"),
    refused("an address", ask("10.1.2.3"), "name_is_address"),
    refused("an address that a network rule has", ask("10.1.0.1"), "name_is_address"),
    refused("an address as one number", ask("167837697"), "name_is_address"),
    refused("an address in hexadecimal", ask("0x0a.0x01.0x00.0x01"), "name_is_address"),
    refused("an IPv6 address", ask("2001:db8:1::5"), "name_is_address"),
    refused("the metadata address", ask("169.254.169.254"), "name_is_address"),
)

TYPES = (
    *(refused(f"type {kind} of an allowed name", ask("api.example.com", kind), "type_not_allowed")
      for kind in (NS, CNAME, SOA, PTR, MX, TXT, SRV, NAPTR, SVCB, HTTPS, CAA, ANY, AXFR, IXFR, 0, 10, 41, 250, 65535)),
    *(refused(f"type {kind} of a denied name", ask("evil.test", kind)) for kind in (AAAA, TXT, HTTPS, ANY, AXFR)),
    *(refused(f"class {class_} of an allowed name", ask("api.example.com", A, class_), "class_not_allowed")
      for class_ in (0, 3, 4, 254, 255, 65535)),
    refused("the version of the server", ask("version.bind", TXT, 3), "class_not_allowed"),
    refused("the reverse of a loopback address", ask("1.0.64.127.in-addr.arpa", PTR)),
    refused("the reverse of a private address", ask("1.0.0.10.in-addr.arpa", PTR)),
    Check(what="AAAA of an allowed name is no data", data=ask("api.example.com", AAAA), code=NOERROR, reason="no_ipv6"),
    Check(what="AAAA below a suffix is no data", data=ask("www.example.org", AAAA), code=NOERROR, reason="no_ipv6"),
)  # fmt: skip

HEADERS = (
    *(
        malformed(f"operation {code}", ask("api.example.com", flags=code << 11), "dns_opcode", NOTIMP)
        for code in (1, 2, 3, 4, 5, 6, 15)
    ),
    malformed("a response", ask("api.example.com", flags=0x8180), "dns_response", None),
    malformed("a response of another operation", ask("api.example.com", flags=0xA800), "dns_response", None),
    malformed("nothing", b"", "dns_header", None),
    malformed("one byte", b"\0", "dns_header", None),
    malformed("a header less a byte", ask("api.example.com")[:11], "dns_header", None),
    malformed("a message of over 4096 bytes", packet(question(), opt(options=b"\0\x0c\x10\0" + bytes(4096))), "dns_header"),
    malformed("a query that is cut short", ask("api.example.com", flags=0x0300), "dns_flags"),
    malformed("a query with the reserved bit", ask("api.example.com", flags=0x0140), "dns_flags"),
    *(malformed(f"a query with code {code}", ask("api.example.com", flags=0x0100 | code), "dns_flags") for code in (1, 3, 15)),
    allowed("without recursion desired", ask("api.example.com", flags=0)),
    allowed("with AD and CD", ask("api.example.com", flags=0x0130)),
    allowed("with AA and RA, which mean nothing in a query", ask("api.example.com", flags=0x0580)),
    allowed("id 0", ask("api.example.com", identity=0)),
    allowed("id 65535", ask("api.example.com", identity=65535)),
    malformed("no question", packet(counts=(0, 0, 0, 0)), "dns_counts"),
    malformed("no question and an OPT record", packet(opt(), counts=(0, 0, 0, 1)), "dns_counts"),
    malformed("two questions", packet(question(), question(), counts=(2, 0, 0, 0)), "dns_counts"),
    malformed("an allowed question and a denied one", packet(question(), question("evil.test"), counts=(2, 0, 0, 0)), "dns_counts"),
    malformed("65535 questions", packet(question(), counts=(65535, 0, 0, 0)), "dns_counts"),
    malformed("an answer", packet(question(), counts=(1, 1, 0, 0)), "dns_counts"),
    malformed("an authority", packet(question(), counts=(1, 0, 1, 0)), "dns_counts"),
    malformed("two additional records", packet(question(), opt(), opt()), "dns_counts"),
    malformed("a count without its record", packet(question(), counts=(1, 0, 0, 1)), "truncated"),
)

QUESTIONS = (
    malformed("a header alone that promises a question", packet(counts=(1, 0, 0, 0)), "truncated"),
    malformed("a name without its end", packet(labels("api.example.com")[:-1]), "truncated"),
    malformed("a name without a type", packet(labels("api.example.com")), "truncated"),
    malformed("half a type", packet(labels("api.example.com") + b"\0"), "truncated"),
    malformed("a type without a class", packet(labels("api.example.com") + b"\0\1"), "truncated"),
    malformed("a byte after the question", packet(question() + b"\0"), "trailing_bytes"),
    malformed("a second name after the question", packet(question() + labels("evil.test")), "trailing_bytes"),
    malformed("a pointer to itself", packet(b"\xc0\x0c\0\1\0\1"), "dns_pointer"),
    malformed("a pointer into the header", packet(b"\xc0\x00\0\1\0\1"), "dns_pointer"),
    malformed("a pointer ahead", packet(b"\xc0\x12\0\1\0\1" + labels("api.example.com")), "dns_pointer"),
    malformed("a pointer behind labels", packet(b"\x03api\xc0\x0c\0\1\0\1"), "dns_pointer"),
    malformed("half a pointer", packet(b"\xc0"), "dns_pointer"),
    malformed("a label of type 01", packet(b"\x41" + b"a" * 65 + b"\0\0\1\0\1"), "dns_name"),
    malformed("a bit-string label", packet(b"\x41\x08\xff\0\0\1\0\1"), "dns_name"),
    malformed("a label of type 10", packet(b"\x80\0\0\1\0\1"), "dns_name"),
    malformed("a label longer than the message", packet(b"\x3fabc"), "truncated"),
    malformed("a name of over 255 octets", ask("aa." + LONGEST), "dns_name"),
    malformed("a name of 2000 octets", ask("abc." * 500 + "example.org"), "dns_name"),
)

EDNS = (
    allowed("an OPT record", packet(question(), opt())),
    *(allowed(f"a payload of {size}", packet(question(), opt(size))) for size in (0, 511, 512, 4096, 65535)),
    allowed("DO", packet(question(), opt(flags=0x8000))),
    allowed("reserved flags", packet(question(), opt(flags=0x7FFF))),
    allowed("a cookie", packet(question(), opt(options=b"\0\x0a\0\x08" + bytes(8)))),
    allowed("padding", packet(question(), opt(options=b"\0\x0c\0\x80" + bytes(128)))),
    allowed("a client subnet, which is passed over", packet(question(), opt(options=b"\0\x08\0\x07\0\1\x18\0\x0a\1\2"))),
    allowed("an empty option", packet(question(), opt(options=b"\xff\xff\0\0"))),
    Check(what="version 1", data=packet(question(), opt(version=1)), code=BADVERS, reason="edns_version"),
    Check(what="version 255", data=packet(question("evil.test"), opt(version=255)), code=BADVERS, reason="edns_version"),
    refused("a denied name with an OPT record", packet(question("evil.test"), opt())),
    malformed("an OPT record with a code", packet(question(), opt(extended=1)), "dns_edns"),
    malformed("an OPT record with a name", packet(question(), b"\1a" + opt()), "dns_edns"),
    malformed("an OPT record whose name is a pointer", packet(question(), b"\xc0\x0c" + opt()[1:]), "dns_edns"),
    malformed("another additional record", packet(question(), b"\0\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1"), "dns_edns"),
    malformed("a signature record", packet(question(), b"\0\0\xfa\0\xff\0\0\0\0\0\0"), "dns_edns"),
    malformed("half an OPT record", packet(question(), opt()[:7]), "truncated"),
    malformed("an option longer than the record", packet(question(), opt(options=b"\0\x0a\0\x09" + bytes(8))), "truncated"),
    malformed("half an option's head", packet(question(), opt(options=b"\0\x0a\0")), "truncated"),
    malformed("a record longer than the message", packet(question(), opt(options=bytes(4))[:-1]), "truncated"),
    malformed("a byte after the OPT record", packet(question(), opt() + b"\0"), "trailing_bytes"),
)

LINK_DOWN = (
    Check(what="A while the link is down", data=ask("api.example.com"), code=SERVFAIL, reason="link_down", link_down=True),
    Check(what="AAAA while the link is down", data=ask("www.example.org", AAAA), code=SERVFAIL, reason="link_down", link_down=True),
    Check(
        what="a denied name while the link is down", data=ask("evil.test"), code=REFUSED, reason="name_not_allowed", link_down=True
    ),
    Check(
        what="a denied type while the link is down",
        data=ask("api.example.com", TXT),
        code=REFUSED,
        reason="type_not_allowed",
        link_down=True,
    ),
    Check(
        what="nonsense while the link is down", data=packet(counts=(0, 0, 0, 0)), code=FORMERR, reason="dns_counts", link_down=True
    ),
)

CHECKS = (*NAMES, *TYPES, *HEADERS, *QUESTIONS, *EDNS, *LINK_DOWN)
