"""The scripts of tlsfuzzer that apply to a server of TLS 1.2 and 1.3 with an RSA leaf, authenticated encryption and ephemeral keys only.

Left out is what asks for another server: CBC, CCM, RSA key exchange, finite-field groups, client certificates, a pre-shared key, OCSP
stapling, heartbeats, compressed certificates, session ids, renegotiation allowed, a KeyUpdate by the server, and a suite of TLS 1.2 that
the script does not let us choose. Within a script, `apart` is a pattern of the probes that ask for such a server.
"""

from dataclasses import dataclass

_GCM = ("-C", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
_CHACHA = ("-C", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")
_GROUPS = "x25519mlkem768,x25519,secp256r1,secp384r1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One script with its arguments; it is passed when every probe is, but for those whose name `apart` matches as a whole."""

    name: str
    arguments: tuple[str, ...] = ()
    apart: str = ""
    why: str = ""
    """Why those are set apart; in `LIBRARY`, why it is not passed."""
    echoes: bool = False
    """Whether the customer's program is to send back what it gets."""


SCRIPTS = (
    # TLS 1.2
    Script(name="aes-gcm-nonces", arguments=_GCM, apart="aes-256-gcm cipher", why="it has no suite for it once one is chosen"),
    Script(name="ccs", arguments=_GCM),
    Script(name="chacha20", arguments=("--extra-exts",)),
    Script(name="connection-abort", arguments=_GCM),
    Script(name="conversation", arguments=_GCM),
    Script(name="cve-2016-6309", arguments=_GCM),
    Script(name="cve-2016-7054", arguments=_CHACHA),
    Script(name="early-application-data", arguments=_GCM),
    Script(name="ecdhe-rsa-key-exchange-with-bad-messages", arguments=_GCM),
    Script(name="fuzzed-ciphertext", arguments=_GCM),
    Script(name="hello-request-by-client", arguments=_GCM),
    Script(name="interleaved-CKE-with-CCS", arguments=_GCM),
    Script(name="invalid-client-hello-w-record-overflow", arguments=_GCM),
    Script(name="invalid-compression-methods", arguments=_GCM),
    Script(name="invalid-content-type", arguments=_GCM),
    Script(name="large-hello", arguments=("-d",)),
    Script(name="lengths", arguments=("-n", "100", *_GCM), echoes=True),
    Script(name="no-mlkem-in-old-tls", arguments=_GCM),
    Script(name="record-layer-fragmentation", arguments=_GCM),
    Script(name="renegotiation-disabled", arguments=_GCM),
    Script(name="version-numbers", arguments=_GCM),
    Script(name="zero-length-data", arguments=_GCM),
    # TLS 1.3
    Script(name="tls13-0rtt-garbage", apart=r".*downgrade to TLS 1\.2.*", why="it offers CBC suites alone in TLS 1.2"),
    Script(name="tls13-ccs"),
    Script(name="tls13-connection-abort"),
    Script(name="tls13-conversation"),
    Script(name="tls13-count-tickets", arguments=("-t", "2")),
    Script(
        name="tls13-crfg-curves",
        apart=".*x448.*|empty x25519 key share",
        why="X448 is not offered; an empty key share breaks the syntax of RFC 8446 section 4.2.8, so that decode_error is right",
    ),
    Script(name="tls13-dhe-shared-secret-padding", apart=".*(secp521r1|x448|ffdhe).*", why="those groups are not offered"),
    Script(name="tls13-ecdhe-curves", apart=".*(secp521r1|x448).*", why="those groups are not offered"),
    Script(name="tls13-empty-alert"),
    Script(name="tls13-finished-plaintext"),
    Script(name="tls13-hrr"),
    Script(name="tls13-invalid-ciphers"),
    Script(name="tls13-keyshare-omitted"),
    Script(name="tls13-keyupdate"),
    Script(name="tls13-large-number-of-extensions", arguments=("--supgroup",)),
    Script(name="tls13-legacy-version"),
    Script(name="tls13-lengths", arguments=("-n", "100"), echoes=True),
    Script(name="tls13-mlkem", arguments=("--kems", "x25519mlkem768", "-n", "100")),
    Script(name="tls13-nociphers"),
    Script(name="tls13-pkcs-signature"),
    Script(name="tls13-record-padding"),
    Script(name="tls13-rsa-signatures"),
    Script(name="tls13-serverhello-random", apart=".*(ffdhe|x448|secp521r1).*", why="those groups are not offered"),
    Script(
        name="tls13-session-resumption",
        apart=r".*TLS 1\.2.*|session resumption - PSK_ONLY",
        why="it offers CBC suites alone in TLS 1.2; no session is resumed without an ephemeral key",
    ),
    Script(name="tls13-symetric-ciphers", apart=".*CCM.*", why="CCM is not offered"),
    Script(name="tls13-unencrypted-alert"),
    Script(
        name="tls13-version-negotiation",
        arguments=_GCM,
        apart=r".* to 1\.[01]|SSL 2\.0 ClientHello.*",
        why="TLS 1.0, TLS 1.1 and SSL 2.0 are not offered; to OpenSSL 4 the last is no TLS and gets no alert",
    ),
    Script(name="tls13-zero-content-type"),
    Script(name="tls13-zero-length-data"),
)
"""What is counted."""

_ALERT = "OpenSSL refuses what has to be refused, by another alert than the script asks for"
_LENIENT = "OpenSSL takes what the script wants refused"
_FIRST = "OpenSSL 4 looks at the first 128 entries of a list, and what it could use stands behind them"

LIBRARY = (
    Script(
        name="point-extension", arguments=_GCM, why=f"{_LENIENT}: compressed points, and a client that names no uncompressed ones"
    ),
    Script(name="truncating-of-client-hello", arguments=_GCM, why=f"{_ALERT}: illegal_parameter for a message that is too long"),
    Script(name="tls13-finished", arguments=("-n", "0"), why=f"{_ALERT}: illegal_parameter for a message that is too long"),
    Script(name="tls13-multiple-ccs-messages", why=f"{_ALERT}: decode_error"),
    Script(name="tls13-no-unknown-groups", arguments=("--groups", _GROUPS), why=_FIRST),
    Script(name="tls13-obsolete-curves", why=f"{_LENIENT}: an obsolete group beside one that is served"),
    Script(
        name="tls13-record-layer-limits", why=f"{_LENIENT}: padding that exceeds a record by one byte; {_ALERT}: illegal_parameter"
    ),
    Script(name="tls13-shuffled-extentions", why=f"{_LENIENT}: another order of extensions in the second ClientHello"),
    Script(name="tls13-signature-algorithms", why=_FIRST),
    Script(name="tls13-unrecognised-groups", apart=".*ffdhe2048.*", why=_FIRST),
)
"""What is run and shown and not counted: the answer is OpenSSL's own, and no setting of a server changes it."""
