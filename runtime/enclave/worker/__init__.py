"""The worker processes: all that parses bytes of the network or of the customer's processes runs here, unprivileged, never in PID 1."""
