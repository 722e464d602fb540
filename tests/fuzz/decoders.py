"""The table of everything that reads bytes of somebody else. A new decoder is one line here and a folder of seeds."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from runtime.enclave.config import load_enclave_config
from runtime.enclave.traffic import egress_connect
from runtime.image.compressed import unpack
from runtime.image.contents import BadImage, Tree
from runtime.image.cpio import write_cpio
from runtime.image.declared import read_image_file
from runtime.image.difference import read_cpio
from runtime.image.eif import HEADER_SIZE, read_eif
from runtime.image.layers import apply_layer
from runtime.image.measure import measure
from runtime.image.signature import read_signature
from runtime.image.spool import Spool
from runtime.protocol import cbor, dns, egress_frames, link, messages, nsm, socks, worker_link
from runtime.protocol.binding import decode_binding
from runtime.protocol.bundle import Bundle
from runtime.protocol.client_hello import ClientHello, ClientHelloReader
from runtime.protocol.cose import split_ed25519
from runtime.protocol.document import parse_document
from runtime.protocol.errors import Malformed
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.proxy_header import PREFIX_SIZE, parse_proxy_header, remaining_size
from runtime.protocol.release import ReleaseHeader, UnverifiedRelease
from runtime.protocol.sealed_logs import Batch
from runtime.settings import SettingsError
from runtime.simulator.vm import ramdisk, vsock_packet
from runtime.verifier.reference import ReferenceInvalid, parse_reference

CORPUS = Path(__file__).parent / "corpus"
VECTORS = Path(__file__).parents[1] / "vectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """`decode` gives a value or raises `error`, and nothing else, for any bytes. `seeds` is a folder."""

    name: str
    decode: Callable[[bytes], object]
    seeds: Path
    error: type[Exception] = Malformed


def _cbor(data: bytes) -> None:
    """A deterministic item is the one encoding of its value."""
    if cbor.encode(cbor.decode(data)) != data:
        raise AssertionError("two encodings of one value")


def _cbor_wellformed(data: bytes) -> None:
    """What is well formed has a deterministic encoding of the same value."""
    value = cbor.decode_wellformed(data, max_size=1 << 16)
    if cbor.decode(cbor.encode(value), max_size=1 << 20) != value:
        raise AssertionError("the value changed")


def _eif(data: bytes) -> None:
    """An image whose CRC is right, so that the rest of it is looked at too."""
    crc = crc32(data[HEADER_SIZE:], crc32(data[: HEADER_SIZE - 4])).to_bytes(4, "big")
    measure(read_eif(data[: HEADER_SIZE - 4] + crc + data[HEADER_SIZE:]))


def _frames(data: bytes) -> None:
    """Frames come out the same whole and byte by byte."""
    whole, single = FrameDecoder(), FrameDecoder()
    whole.receive_data(data)
    expected = []
    while frame := whole.next_frame():
        expected.append(frame)
    found = []
    for index in range(len(data)):
        single.receive_data(data[index : index + 1])
        if frame := single.next_frame():
            found.append(frame)
    if found != expected:
        raise AssertionError("the pieces of a stream changed its frames")


def _proxy_header(data: bytes) -> None:
    """The prefix says how much is read; the rest is left."""
    prefix = data[:PREFIX_SIZE].ljust(PREFIX_SIZE, b"\0")
    parse_proxy_header(prefix + data[PREFIX_SIZE : PREFIX_SIZE + remaining_size(prefix)])


def _egress_prefix(data: bytes) -> int:
    return egress_frames.remaining_size(data[:4].ljust(4, b"\0"))


def _client_hello(data: bytes) -> ClientHello:
    """A hello comes out the same whole and byte by byte."""
    single = ClientHelloReader()
    whole: ClientHello | str | None
    found: ClientHello | str | None = None
    try:
        whole = ClientHelloReader().receive_data(data)
    except Malformed as fault:
        whole = fault.reason
    try:
        for index in range(len(data)):
            found = found or single.receive_data(data[index : index + 1])
    except Malformed as fault:
        found = fault.reason
    if found != whole:
        raise AssertionError("the pieces of a stream changed its hello")
    if not isinstance(found, ClientHello):
        raise Malformed("no hello", found or "truncated")
    return found


def _socks_greeting(data: bytes) -> None:
    """A greeting says how long it is."""
    socks.require_no_authentication(data[2 : 2 + socks.methods_size(data[:2])])


def _connect_head(data: bytes) -> tuple[str, int]:
    """A head ends in the same place whole and byte by byte, and has one target."""
    whole = egress_connect.head_size(bytearray(data), 0)
    seen = bytearray()
    while len(seen) < len(data):
        seen += data[len(seen) : len(seen) + 1]
        if size := egress_connect.head_size(seen, len(seen) - 1):
            if size != whole:
                raise AssertionError("the pieces of a stream changed its head")
            return egress_connect.decode_connect(bytes(seen))
    raise Malformed("no head", "truncated")


def _reference(data: bytes) -> object:
    return parse_reference(data.decode("utf-8", "replace"))


def _layer(data: bytes) -> object:
    """Unpacked, read, and written as an archive."""
    tree, spool = Tree(), Spool(io.BytesIO())
    unpacked = unpack([data], spool, "a layer")
    apply_layer(tree, spool, offset=unpacked.offset, size=unpacked.size)
    return b"".join(write_cpio(tree, spool.read))


DECODERS = (
    Decoder(name="cbor", decode=_cbor, seeds=CORPUS / "cbor"),
    Decoder(name="cbor_wellformed", decode=_cbor_wellformed, seeds=CORPUS / "cbor"),
    Decoder(name="frames", decode=_frames, seeds=CORPUS / "frames"),
    Decoder(name="binding", decode=decode_binding, seeds=CORPUS / "binding"),
    Decoder(name="eif", decode=_eif, seeds=VECTORS / "eif"),
    Decoder(name="cpio", decode=lambda data: [*read_cpio(data)], seeds=CORPUS / "cpio"),
    Decoder(name="image file", decode=read_image_file, seeds=CORPUS / "image_file", error=BadImage),
    Decoder(name="layer", decode=_layer, seeds=CORPUS / "layer", error=BadImage),
    Decoder(name="image signature", decode=read_signature, seeds=CORPUS / "image_signature"),
    Decoder(name="cose", decode=lambda data: split_ed25519(data, max_size=1 << 16), seeds=CORPUS / "cose"),
    Decoder(name="document", decode=parse_document, seeds=VECTORS / "attestation"),
    Decoder(name="nsm_request", decode=nsm.decode_request, seeds=CORPUS / "nsm_request"),
    Decoder(name="nsm_response", decode=nsm.decode_response, seeds=CORPUS / "nsm_response"),
    Decoder(name="proxy_header", decode=_proxy_header, seeds=CORPUS / "proxy_header"),
    Decoder(name="sealed_logs", decode=Batch.decode, seeds=CORPUS / "sealed_logs"),
    Decoder(name="link", decode=lambda data: link.decode_message(cbor.decode(data, max_size=1 << 16)), seeds=CORPUS / "link"),
    Decoder(
        name="from_worker", decode=lambda data: worker_link.decode_from_worker(cbor.decode(data)), seeds=CORPUS / "worker_link"
    ),
    Decoder(name="from_first", decode=lambda data: worker_link.decode_from_first(cbor.decode(data)), seeds=CORPUS / "worker_link"),
    Decoder(name="egress_connect", decode=egress_frames.decode_connect, seeds=CORPUS / "egress"),
    Decoder(name="egress_answer", decode=egress_frames.decode_answer, seeds=CORPUS / "egress"),
    Decoder(name="client_hello", decode=_client_hello, seeds=CORPUS / "client_hello"),
    Decoder(name="dns_query", decode=dns.decode_query, seeds=CORPUS / "dns_query"),
    Decoder(name="socks_request", decode=socks.decode_request, seeds=CORPUS / "socks_request"),
    Decoder(name="socks_greeting", decode=_socks_greeting, seeds=CORPUS / "socks_greeting"),
    Decoder(name="connect_head", decode=_connect_head, seeds=CORPUS / "connect_head"),
    Decoder(name="egress_prefix", decode=_egress_prefix, seeds=CORPUS / "frames"),
    Decoder(name="prov_ticket_request", decode=messages.TicketRequest.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_ticket_reply", decode=messages.TicketReply.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_hello", decode=messages.Hello.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_challenge", decode=messages.Challenge.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_evidence", decode=messages.Evidence.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_confirm", decode=messages.Confirm.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_error", decode=messages.ProvError.decode, seeds=CORPUS / "prov"),
    Decoder(name="prov_release", decode=UnverifiedRelease.decode, seeds=CORPUS / "release"),
    Decoder(name="prov_release_header", decode=lambda data: ReleaseHeader.from_value(cbor.decode(data)), seeds=CORPUS / "release"),
    Decoder(name="bundle", decode=Bundle.decode, seeds=CORPUS / "bundle"),
    Decoder(name="config", decode=lambda data: load_enclave_config(data, "f"), seeds=CORPUS / "config", error=SettingsError),
    Decoder(name="reference", decode=_reference, seeds=CORPUS / "reference", error=ReferenceInvalid),
    Decoder(name="ramdisk", decode=lambda data: ramdisk.find_file([data], b"a"), seeds=CORPUS / "ramdisk"),
    Decoder(name="vsock packet", decode=vsock_packet.decode, seeds=CORPUS / "vsock_packet"),
)
