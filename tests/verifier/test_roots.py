"""The pinned root is AWS's, and the wrong one is not taken."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from runtime.verifier import roots
from tests.support.vectors import FOLDER


def test_the_pinned_root_is_the_published_one() -> None:
    published = x509.load_pem_x509_certificate((FOLDER / "aws-nitro-root-g1.pem").read_bytes())
    assert roots.aws_root() == published
    assert roots.aws_root().fingerprint(SHA256()).hex() == "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"


def test_a_root_that_was_altered_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "AWS_ROOT_FINGERPRINT", "8cf60e2b2efca96c6a9e71e851d00c1b6991cc09eadbe64a6a1d1b1eb9faff7c")
    with pytest.raises(RuntimeError, match="altered"):
        roots.aws_root.__wrapped__()
