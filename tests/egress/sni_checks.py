"""What a gate that reads SNI is given, and what must become of it, when it was made for api.example.com."""

from dataclasses import dataclass

from runtime.enclave.config_egress import SniException
from tests.egress.hellos import (
    EARLY_DATA,
    ECH,
    NAME,
    PADDING,
    PSK,
    SNI,
    TLS13,
    alpn,
    body,
    extension,
    hello,
    message,
    record,
    records,
    sni,
    vector,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`data` is all that the client sends; `reason` "allowed", one of `HelloFault` or one of `GateReason`."""

    what: str
    data: bytes
    reason: str
    exceptions: tuple[SniException, ...] = ()


def allowed(what: str, data: bytes, *exceptions: SniException) -> Check:
    return Check(what=what, data=data, reason="allowed", exceptions=exceptions)


def refused(what: str, data: bytes, reason: str, *exceptions: SniException) -> Check:
    return Check(what=what, data=data, reason=reason, exceptions=exceptions)


RIGHT = message(body(TLS13, sni(NAME), alpn(b"h2", b"http/1.1")))
EMPTY_SNI = extension(SNI)
LONGEST = message(body(sni(NAME), extension(PADDING, bytes(16384 - len(body(sni(NAME), extension(PADDING)))))))

ALLOWED = (
    allowed("a hello", record(RIGHT)),
    allowed("record version 3.3", record(RIGHT, version=0x0303)),
    allowed("record version 3.2", record(RIGHT, version=0x0302)),
    allowed("TLS 1.0 inside", record(message(body(sni(NAME), version=0x0301)))),
    allowed("TLS 1.2 without other extensions", hello(sni(NAME))),
    allowed("the name last", hello(TLS13, alpn(b"h2"), sni(NAME))),
    allowed("the name in capitals", hello(sni(NAME.upper()))),
    allowed("the name in mixed case", hello(sni(b"Api.eXample.Com"))),
    allowed("no session id", record(message(body(sni(NAME), session=b"")))),
    allowed("more compression methods", record(message(body(sni(NAME), compression=b"\1\0")))),
    allowed("unknown extensions", hello(extension(0x0A0A), extension(0xFAFA, b"\0"), sni(NAME))),
    allowed("a large key share", hello(extension(51, bytes(1300)), sni(NAME))),
    allowed("padding to 4 KiB", hello(sni(NAME), extension(PADDING, bytes(4096)))),
    allowed("the name behind 12 KiB", hello(extension(PADDING, bytes(12000)), sni(NAME))),
    allowed("the largest hello", records(LONGEST, 16384)),
    allowed("a pre-shared key at the end", hello(sni(NAME), extension(EARLY_DATA), extension(PSK, bytes(40)))),
    allowed("early data behind", hello(sni(NAME)) + record(bytes(100), kind=23, version=0x0303)),
    allowed("a change of cipher spec behind", hello(sni(NAME)) + record(b"\1", kind=20, version=0x0303)),
    *(allowed(f"records of {size} bytes", records(RIGHT, size)) for size in (1, 2, 3, 4, 5, 16, 64, 100)),
    allowed("a name cut by records", records(RIGHT, RIGHT.index(NAME) + 4)),
    allowed("no name, where the rule says so", hello(TLS13), "missing"),
    allowed("no extensions, where the rule says so", record(message(body(block=b""))), "missing"),
    allowed("an encrypted name, where the rule says so", hello(sni(b"public.example"), extension(ECH, bytes(100))), "encrypted"),
    allowed("an encrypted name and none outside, where the rule says so", hello(extension(ECH, bytes(100))), "encrypted"),
)

OTHER_NAME = (
    refused("another name", hello(sni(b"evil.test")), "sni_mismatch"),
    refused("another allowed name", hello(sni(b"www.example.org")), "sni_mismatch"),
    refused("a name above", hello(sni(b"example.com")), "sni_mismatch"),
    refused("a name below", hello(sni(b"x.api.example.com")), "sni_mismatch"),
    refused("the name with more behind", hello(sni(b"api.example.com.evil.test")), "sni_mismatch"),
    refused("another name, in small records", records(message(body(sni(b"evil.test"))), 3), "sni_mismatch"),
    refused("another name, where none would do", hello(sni(b"evil.test")), "sni_mismatch", "missing"),
    refused("another name, where an encrypted one would do", hello(sni(b"evil.test")), "sni_mismatch", "encrypted"),
    refused("the name as ALPN and another as name", hello(alpn(NAME), sni(b"evil.test")), "sni_mismatch"),
    refused("the name in the padding and another as name", hello(extension(PADDING, sni(NAME)), sni(b"evil.test")), "sni_mismatch"),
    refused("no name", hello(TLS13), "sni_missing"),
    refused("no extensions", record(message(body(block=b""))), "sni_missing"),
    refused("an empty block of extensions", hello(), "sni_missing"),
    refused("no name, where an encrypted one would do", hello(TLS13), "sni_missing", "encrypted"),
    refused("the name in another extension", hello(extension(1, sni(NAME)[4:])), "sni_missing"),
    refused("an encrypted name and ours outside", hello(sni(NAME), extension(ECH, bytes(100))), "sni_encrypted"),
    refused("an encrypted name, where none would do", hello(sni(NAME), extension(ECH)), "sni_encrypted", "missing"),
    *(refused(f"a draft's encrypted name, {kind:04x}", hello(sni(NAME), extension(kind, bytes(8))), "sni_encrypted")
      for kind in (0xFE08, 0xFE09, 0xFE0A, 0xFE0B, 0xFE0C, 0xFFCE)),
)  # fmt: skip

NAMES = (
    refused("two names", hello(sni(NAME, b"evil.test")), "two_names"),
    refused("the name twice", hello(sni(NAME, NAME)), "two_names"),
    refused("two extensions with names", hello(sni(NAME), sni(b"evil.test")), "extension_twice"),
    refused("any extension twice", hello(sni(NAME), TLS13, TLS13), "extension_twice"),
    refused("a name of another type", hello(sni(NAME, kind=1)), "bad_name"),
    refused("an empty name", hello(sni(b"")), "bad_name"),
    refused("a closing dot", hello(sni(NAME + b".")), "bad_name"),
    refused("a zero byte at the end", hello(sni(NAME + b"\0")), "bad_name"),
    refused("a zero byte inside", hello(sni(b"api.example.com\0.evil.test")), "bad_name"),
    refused("an address", hello(sni(b"10.1.2.3")), "bad_name"),
    refused("an IPv6 address", hello(sni(b"2001:db8:1::5")), "bad_name"),
    refused("an address as a number", hello(sni(b"167837697")), "bad_name"),
    refused("a space", hello(sni(b"api.example.com ")), "bad_name"),
    refused("a port", hello(sni(b"api.example.com:443")), "bad_name"),
    refused("a wildcard", hello(sni(b"*.example.com")), "bad_name"),
    refused("UTF-8", hello(sni("bücher.example".encode())), "bad_name"),
    refused("Latin-1", hello(sni(b"b\xfccher.example")), "bad_name"),
    refused("an empty label", hello(sni(b"api..example.com")), "bad_name"),
    refused("a name of 300 bytes", hello(sni(b"a." * 150 + b"example")), "bad_name"),
    refused("a closing dot, where no name would do", hello(sni(b".")), "bad_name", "missing"),
)

LENGTHS = (
    refused("an empty extension", hello(EMPTY_SNI), "truncated"),
    refused("an empty list", hello(extension(SNI, b"\0\0")), "truncated"),
    refused("a list longer than its extension", hello(extension(SNI, b"\0\x20\0" + vector(NAME, 2))), "truncated"),
    refused("a list shorter than its extension", hello(extension(SNI, sni(NAME)[4:] + b"\0")), "trailing_bytes"),
    refused("a name longer than its list", hello(extension(SNI, vector(b"\0\0\xff" + NAME, 2))), "truncated"),
    refused("an extension longer than the block", record(message(body(block=vector(sni(NAME)[:-1], 2)))), "truncated"),
    refused("a block longer than the hello", record(message(body(block=b"\xff\xff" + sni(NAME)))), "truncated"),
    refused("a byte after the block", record(message(body(sni(NAME)) + b"\0")), "trailing_bytes"),
    refused("one byte for a block", record(message(body(block=b"\0"))), "truncated"),
    refused("a session id of 33 bytes", record(message(body(sni(NAME), session=bytes(33)))), "hello_malformed"),
    refused("no cipher suites", record(message(body(sni(NAME), suites=b""))), "hello_malformed"),
    refused("half a cipher suite", record(message(body(sni(NAME), suites=b"\x13\1\x13"))), "hello_malformed"),
    refused("no compression", record(message(body(sni(NAME), compression=b""))), "hello_malformed"),
    refused("no null compression", record(message(body(sni(NAME), compression=b"\1"))), "hello_malformed"),
    refused("a pre-shared key that is not last", hello(extension(PSK, bytes(40)), sni(NAME)), "hello_malformed"),
    refused("an empty ALPN list", hello(sni(NAME), alpn()), "hello_malformed"),
    refused("an empty protocol", hello(sni(NAME), alpn(b"h2", b"")), "hello_malformed"),
    refused("a hello of 40 bytes", record(message(bytes(40))), "tls_version"),
    refused("a hello cut in its random", record(message(body(sni(NAME))[:20])), "truncated"),
    refused("an empty hello", record(message(b"")), "truncated"),
    refused(
        "a hello of over 16 KiB", records(message(body(sni(NAME), extension(PADDING, bytes(16384)))), 16384), "hello_too_large"
    ),
    refused("a hello that claims 16 MiB", record(b"\1\xff\xff\xff" + bytes(100)), "hello_too_large"),
    refused("a hello longer than its records, and then nothing", record(b"\1\0\x10\0" + bytes(100)), "truncated"),
    refused("a second message in the record", record(RIGHT + message(b"", 20)), "trailing_bytes"),
    refused("a second hello in the record", record(RIGHT + message(body(sni(b"evil.test")))), "trailing_bytes"),
)

RECORDS = (
    refused("nothing", b"", "truncated"),
    refused("one byte", b"\x16", "truncated"),
    refused("a hello less a byte", record(RIGHT)[:-1], "truncated"),
    refused("plain HTTP", b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "not_tls"),
    refused("a proxy request", b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n", "not_tls"),
    refused("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
    refused("SMTP", b"EHLO api.example.com\r\n", "not_tls"),
    refused("PostgreSQL's question for TLS", b"\0\0\0\x08\x04\xd2\x16\x2f", "not_tls"),
    refused("SSL 2", b"\x80\x2e\1\3\1\0\x15\0\0\0\x10", "not_tls"),
    refused("a PROXY header", b"\r\n\r\n\0\r\nQUIT\n", "not_tls"),
    refused("zeros", bytes(64), "not_tls"),
    refused("an alert first", record(b"\2\x28", kind=21) + record(RIGHT), "not_tls"),
    refused("application data first", record(b"GET / HTTP/1.1\r\n", kind=23), "not_tls"),
    refused("a change of cipher spec first", record(b"\1", kind=20) + record(RIGHT), "not_tls"),
    refused("a heartbeat first", record(b"\1\0\3abc", kind=24), "not_tls"),
    refused("a ServerHello", record(message(body(sni(NAME)), 2)), "not_client_hello"),
    refused("a HelloRequest", record(message(b"", 0)), "not_client_hello"),
    refused("record version 2.0", record(RIGHT, version=0x0200), "not_tls"),
    refused("record version 3.0", record(RIGHT, version=0x0300), "tls_version"),
    refused("record version 3.4", record(RIGHT, version=0x0304), "tls_version"),
    refused("DTLS", record(RIGHT, version=0xFEFD), "not_tls"),
    refused("SSL 3 inside", record(message(body(sni(NAME), version=0x0300))), "tls_version"),
    refused("version 3.4 inside", record(message(body(sni(NAME), version=0x0304))), "tls_version"),
    refused("an empty record first", record(b"") + record(RIGHT), "record_size"),
    refused("an empty record between", record(RIGHT[:50]) + record(b"") + record(RIGHT[50:]), "record_size"),
    refused("a record of over 16 KiB", b"\x16\3\1\x40\1" + RIGHT + bytes(16385), "record_size"),
    refused("an alert between", record(RIGHT[:50]) + record(b"\1\0", kind=21) + record(RIGHT[50:]), "not_client_hello"),
    refused("data between", record(RIGHT[:50]) + record(b"abc", kind=23) + record(RIGHT[50:]), "not_client_hello"),
    refused("another version between", record(RIGHT[:50]) + record(RIGHT[50:], version=0x0200), "tls_version"),
    refused(
        "8 KiB in records of one byte", records(message(body(sni(NAME), extension(PADDING, bytes(8000)))), 1), "hello_too_large"
    ),
)

CHECKS = (*ALLOWED, *OTHER_NAME, *NAMES, *LENGTHS, *RECORDS)
