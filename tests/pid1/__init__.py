"""One table of black-box checks for a first process: ours, tini and dumb-init, run side by side in the same test run.

Each check is a function of a subject. A real clock is used where waiting is the check (the grace, idleness) and to look again at what the
kernel tells nobody about (`until`); everything else waits for an event and fails at a deadline.
"""
