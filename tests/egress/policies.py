"""The policy that the tables of this folder ask, read the way that an enclave reads it."""

from runtime.enclave.config import load_enclave_config
from runtime.enclave.traffic.egress_policy import EgressPolicy

REST = '''
version = 1
[enclave]
id = "a"
[[process]]
name = "app"
command = ["/app"]
[provisioner]
url = "https://p.example"
ca = """
-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----
"""
keys = ["ed25519:iimz7szjj/5AHwSQMm4Lg7t85yl5bSfkQU0yUgXkQIU="]
'''

RULES = """
[egress]
allow = [
  { name = "api.example.com", ports = [443, 8443] },
  { suffix = "example.org", ports = [443] },
  { suffix = "apex.example", apex = true, ports = [443, "8000-8003"], sni = ["missing"] },
  { name = "db.example.net", ports = [5432] },
  { cidr = "10.1.0.0/16", ports = [5432] },
  { cidr = "2001:db8:1::/48", ports = [443] },
  { name = "bücher.example", ports = [443], sni = ["encrypted"] },
  { name = "plain.example", ports = [443, 80], tls = false },
  { name = "smtps.example", ports = [465], tls = true },
  { name = "api.example.com", ports = [9000], tls = true },
]
"""


def policy(rules: str = RULES) -> EgressPolicy:
    """The policy of an enclave.toml with this `[egress]`."""
    return EgressPolicy(load_enclave_config((REST + rules).encode(), "enclave.toml", reads_roots=False).egress.allow)
