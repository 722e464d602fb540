"""Evidence of enclaves that run and are not what the record says: each refused with its code and reason, and nothing released."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.protocol.digest import digest
from runtime.protocol.measurements import (
    CONFIG_PCR,
    KEY_PCR,
    LIVE_PCR,
    config_commitment,
    instance_register,
    key_commitment,
    live_commitment,
    role_register,
)
from runtime.protocol.messages import Evidence
from runtime.protocol.sealing import Suite, generate_key
from runtime.simulator.nsm import SimulatedNsm
from runtime.simulator.pki import make_root
from runtime.verifier.reference import ReferenceValues
from runtime.verifier.roots import aws_root
from tests.provisioner.refusals import refuse_evidence
from tests.support.prov import CONFIG_DIGEST, IMAGE, INSTANCE, MODULE_ID, NOW, OTHER_IMAGE, Bench, ground, reference
from tests.support.vectors import document_bytes

OTHER_INSTANCE = "i-0fedcba9876543210"
ROLE = "arn:aws:iam::123456789012:role/enclave"
GENUINE = "20260630-us-east-1-prod-277e236b.cbor"


@pytest.mark.parametrize(
    "pcrs", [OTHER_IMAGE, {0: b"\x01" * 48, 1: b"\x02" * 48}, {}], ids=["another image", "no PCR 2", "only PCR 4"]
)
def test_an_image_that_no_reference_names(bench: Bench, pcrs: dict[int, bytes]) -> None:
    attempt = bench.boot(pcrs=pcrs).attempt().ready()
    refuse_evidence(attempt, code="refused", reason="measurement_unknown" if pcrs else "debug_enclave")


def test_an_enclave_in_debug_mode_also_where_the_reference_is_zero(bench: Bench) -> None:
    bench.put(reference=reference(dict.fromkeys((0, 1, 2), bytes(48))))
    refuse_evidence(bench.boot(debug=True).attempt().ready(), code="refused", reason="debug_enclave")


def test_a_build_below_the_floor(bench: Bench) -> None:
    bench.put(epoch_floor=8)
    refuse_evidence(bench.boot().attempt().ready(), code="refused", reason="epoch_floor")


@pytest.mark.parametrize(
    ("measured", "recorded"),
    [({"zone": "b"}, {}), ({}, {"zone": "a"}), ({"zone": "b"}, {"zone": "a"}), ({"zone": "a", "more": ""}, {"zone": "a"})],
    ids=repr,
)
def test_host_parameters_that_the_record_does_not_name(bench: Bench, measured: dict[str, str], recorded: dict[str, str]) -> None:
    bench.put(host_parameters=recorded)
    refuse_evidence(bench.boot(host_parameters=measured).attempt().ready(), code="refused", reason="config_mismatch")


def test_a_config_register_of_another_config_than_hello_names(bench: Bench) -> None:
    """PCR 16 was extended with one config; runtime and hello say another."""
    boot = bench.boot(config_digest=bytes(48))
    honest = bench.boot()
    boot.claims = honest.claims
    refuse_evidence(boot.attempt().ready(), code="refused", reason="config_mismatch")


def test_a_config_that_the_builder_did_not_record(bench: Bench) -> None:
    """Hello and PCR 16 agree with each other, and not with the reference value that the measurement matched."""
    recorded = replace(reference().measurements[0], config_digest=digest(b"the enclave.toml that was built"))
    bench.put(reference=ReferenceValues(measurements=(recorded,)))
    refuse_evidence(bench.boot().attempt().ready(), code="refused", reason="config_mismatch")
    attempt = bench.boot(config_digest=recorded.config_digest).attempt()
    attempt.opened(attempt.run())


def test_a_config_register_that_was_extended_again_before_it_was_locked(bench: Bench) -> None:
    boot = bench.boot()
    boot.nsm = SimulatedNsm(ground().attestation, module_id=MODULE_ID, pcrs=IMAGE, now=bench.clock.moment)
    boot.register(CONFIG_PCR, config_commitment(CONFIG_DIGEST, {}), lock=False)
    boot.register(CONFIG_PCR, b"more")
    refuse_evidence(boot.attempt().ready(), code="refused", reason="config_mismatch")


@pytest.mark.parametrize("register_17", ["missing", "of another key", "unlocked", "extended twice"])
def test_a_key_register_that_does_not_commit_to_the_key(bench: Bench, register_17: str) -> None:
    boot = bench.boot()
    key = boot.make_key(Suite.X25519, commit=False)
    match register_17:
        case "of another key":
            boot.register(KEY_PCR, key_commitment(generate_key(Suite.X25519).public))
        case "unlocked":
            boot.register(KEY_PCR, key_commitment(key.public), lock=False)
        case "extended twice":
            boot.register(KEY_PCR, key_commitment(key.public), lock=False)
            boot.register(KEY_PCR, key_commitment(key.public))
        case _:
            pass
    refuse_evidence(boot.attempt().ready(), code="refused", reason="phase_not_setup")


@pytest.mark.parametrize("data", [live_commitment(), b""], ids=["live", "anything"])
def test_a_boot_that_has_opened_its_secrets_gets_none_again(bench: Bench, data: bytes) -> None:
    """What a customer process that turned hostile, root and all, could do at most: ask again with the key of the boot."""
    boot = bench.boot()
    first = boot.attempt()
    first.opened(first.run())
    boot.register(LIVE_PCR, data)
    refuse_evidence(boot.attempt().ready(), code="refused", reason="phase_not_setup")


def test_a_live_boot_cannot_commit_to_another_key(bench: Bench) -> None:
    boot = bench.boot()
    first = boot.attempt()
    first.opened(first.run())
    boot.key = None
    second = boot.attempt()
    second.greet()
    boot.make_key(Suite.X25519)  # the register is locked: the module refuses, and the process goes on
    second.evidence()
    refuse_evidence(second, code="refused", reason="phase_not_setup")


def test_a_proof_of_a_lease_in_setup_evidence(bench: Bench) -> None:
    """The field belongs to renewal alone, and the transcript does not cover it."""
    attempt = bench.boot().attempt()
    message = Evidence.decode(attempt.ready().message)
    with_proof = Evidence(
        challenge_id=message.challenge_id,
        document=message.document,
        hpke_public_key=message.hpke_public_key,
        lease_proof=bytes(48),
    )
    refuse_evidence(attempt, message=with_proof.encode(), code="refused", reason="phase_not_setup")


# Where it runs


@pytest.mark.parametrize(
    ("measured", "allowed"),
    [(ROLE, ("none",)), (None, (ROLE,)), (ROLE + "x", (ROLE,)), (ROLE, ())],
    ids=["a role where none is allowed", "none where one is required", "another role", "nothing allowed"],
)
def test_an_instance_with_another_role(bench: Bench, measured: str | None, allowed: tuple[str, ...]) -> None:
    bench.put(roles=allowed)
    pcrs = dict(IMAGE) | ({} if measured is None else {3: role_register(measured)})
    refuse_evidence(bench.boot(pcrs=pcrs).attempt().ready(), code="refused", reason="host_role")


def test_an_instance_with_the_allowed_role(bench: Bench) -> None:
    bench.put(roles=("none", ROLE))
    attempt = bench.boot(pcrs=dict(IMAGE) | {3: role_register(ROLE)}).attempt()
    attempt.opened(attempt.run())


def test_a_ticket_that_was_bought_for_another_instance(bench: Bench) -> None:
    attempt = bench.boot().attempt(ticket=bench.ticket(instance_id=OTHER_INSTANCE)).ready()
    refuse_evidence(attempt, code="refused", reason="host_instance")


@pytest.mark.parametrize(
    ("module", "register"),
    [(f"{OTHER_INSTANCE}-enc0123456789abcdef", INSTANCE), (f"{INSTANCE}-enc0123456789abcdef", OTHER_INSTANCE)],
    ids=["only the module's name", "only PCR 4"],
)
def test_an_instance_of_which_only_half_is_the_tickets(bench: Bench, module: str, register: str) -> None:
    pcrs = dict(IMAGE) | {4: instance_register(register)}
    refuse_evidence(bench.boot(module_id=module, pcrs=pcrs).attempt().ready(), code="refused", reason="host_instance")


@pytest.mark.parametrize(("module", "register"), [("other-enc0", "rack-7"), ("rack-7-enc0", "other"), ("other-enc0", "other")])
def test_an_instance_whose_id_is_not_of_ec2s_form_must_be_the_tickets_all_the_same(
    bench: Bench, module: str, register: str
) -> None:
    """The appraisal knows no instance in such a module's name, so that both halves are the provisioner's to compare."""
    ticket = bench.ticket(instance_id="rack-7")
    wrong = bench.boot(module_id=module, pcrs=dict(IMAGE) | {4: instance_register(register)})
    refuse_evidence(wrong.attempt(ticket=ticket).ready(), code="refused", reason="host_instance")
    right = bench.boot(module_id="rack-7-enc0", pcrs=dict(IMAGE) | {4: instance_register("rack-7")}).attempt(ticket=ticket)
    right.opened(right.run())


def test_another_source_address_where_the_record_is_strict(bench: Bench) -> None:
    bench.put(strict_source_ip=True)
    refuse_evidence(bench.boot().attempt().ready(), address="203.0.113.9", code="refused", reason="source_ip")
    attempt = bench.boot().attempt()
    attempt.opened(attempt.run())


# Roots


def test_a_simulated_enclave_at_a_provisioner_that_trusts_aws(tmp_path: Path) -> None:
    bench = Bench(tmp_path, roots=[aws_root()])
    try:
        refuse_evidence(bench.boot().attempt().ready(), code="refused", reason="doc_chain")
    finally:
        bench.close()


def test_a_simulated_enclave_under_another_development_root(bench: Bench) -> None:
    refuse_evidence(bench.boot(root=make_root(now=NOW)).attempt().ready(), code="refused", reason="doc_chain")


@pytest.mark.parametrize("trusts_aws", [False, True])
def test_a_genuine_document_of_somebody_else(tmp_path: Path, trusts_aws: bool) -> None:
    """At a provisioner with the development root its chain is wrong; at a real one it is old, and for another nonce."""
    bench = Bench(tmp_path, roots=[aws_root()] if trusts_aws else None)
    try:
        attempt = bench.boot().attempt()
        attempt.greet()
        attempt.evidence(document_bytes(GENUINE))
        refuse_evidence(attempt, code="refused", reason="doc_chain")
    finally:
        bench.close()
