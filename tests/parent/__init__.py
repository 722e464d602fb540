"""The parent instance's side, driven over real sockets."""
