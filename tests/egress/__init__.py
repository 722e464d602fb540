"""Egress: what may be reached, how names are answered, what TLS must say; tables of attempts and what must become of each."""
