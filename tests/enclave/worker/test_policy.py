"""What each role may ask of the security module: a worker that was taken over gets no document that another role could make."""

from itertools import product
from typing import get_args

import pytest

from runtime.enclave.process.worker_policy import may_ask
from runtime.protocol.binding import encode_app, encode_prov, encode_public
from runtime.protocol.nsm import Attest, DescribeNsm, DescribePcr, ExtendPcr, GetRandom, LockPcr, LockPcrs, Request
from runtime.protocol.worker_link import Role

CONFIG = b"c" * 48
ROLES: tuple[Role, ...] = get_args(Role)

PUBLIC = Attest(
    user_data=encode_public(spki_digest=bytes(48), exporter=bytes(32), config_digest=CONFIG), nonce=bytes(32), public_key=None
)
EVIDENCE = Attest(user_data=encode_prov(bytes(48)), nonce=bytes(32), public_key=bytes(32))
APPLICATION = Attest(user_data=encode_app(b"challenge"), nonce=bytes(32), public_key=bytes(64))
TIME = Attest(user_data=None, nonce=None, public_key=None)

ALLOWED: dict[Role, list[Request]] = {
    "provision": [EVIDENCE, TIME, ExtendPcr(index=17, data=bytes(48)), LockPcr(index=17)],
    "renew": [EVIDENCE, TIME],
    "ingress": [PUBLIC],
    "api": [APPLICATION],
    "egress": [],
}
NEVER: list[Request] = [
    Attest(user_data=None, nonce=bytes(32), public_key=None),
    Attest(user_data=None, nonce=None, public_key=bytes(32)),
    Attest(user_data=b"", nonce=None, public_key=None),
    Attest(user_data=b"\xa1\x00\x65other", nonce=None, public_key=None),
    ExtendPcr(index=16, data=b""),
    ExtendPcr(index=18, data=b""),
    LockPcr(index=16),
    LockPcr(index=18),
    LockPcrs(count=32),
    DescribeNsm(),
    DescribePcr(index=0),
    GetRandom(),
]


@pytest.mark.parametrize(("role", "request_"), [(role, each) for role in ROLES for each in ALLOWED[role]], ids=repr)
def test_a_role_may_ask_for_what_it_is_there_for(role: Role, request_: Request) -> None:
    assert may_ask(role, request_, config_digest=CONFIG)


@pytest.mark.parametrize(
    ("role", "request_"),
    [(role, each) for role, other in product(ROLES, ROLES) for each in ALLOWED[other] if each not in ALLOWED[role]],
    ids=repr,
)
def test_no_role_may_ask_for_what_another_is_there_for(role: Role, request_: Request) -> None:
    assert not may_ask(role, request_, config_digest=CONFIG)


@pytest.mark.parametrize(("role", "request_"), list(product(ROLES, NEVER)), ids=repr)
def test_nobody_may_ask_for_anything_else(role: Role, request_: Request) -> None:
    assert not may_ask(role, request_, config_digest=CONFIG)


def test_evidence_for_clients_names_the_measured_config_and_no_other() -> None:
    assert not may_ask("ingress", PUBLIC, config_digest=b"d" * 48)
