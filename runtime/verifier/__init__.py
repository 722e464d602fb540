"""Judges attestation documents: pure, no I/O, no clock. Runs wherever somebody relies on an enclave; never inside one.

`appraise.appraise` is the one door. It trusts the roots, the reference values, the nonce and the time that its caller gives, and nothing
in the document until all of it has been judged.
"""
