"""The worker processes and what they may do."""
