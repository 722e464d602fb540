"""The customer's processes: started under their own user, watched, reaped. Runs in PID 1, which never reads what they say as anything
but bytes."""
