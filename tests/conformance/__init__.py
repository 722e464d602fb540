"""The outside judges of the public port: other people's test suites and loads, against a running enclave. See README.md."""
