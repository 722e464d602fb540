"""Requests and answers that two readers could see differently, and a judge of what the ingress makes of them (README.md)."""
