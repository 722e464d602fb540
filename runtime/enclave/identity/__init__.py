"""Who this enclave is and how it proves it: the NSM, attestation, provisioning, secrets, certificates. Runs in the supervisor alone."""
