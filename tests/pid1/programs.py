"""The small programs that are run under a first process. They are text, run by an interpreter that imports nothing but what they name."""

REPORT = """
import os
def say(text):
    os.write(1, (str(text) + "\\n").encode())
"""

LISTEN = (
    REPORT
    + """
import signal, sys
heard = {int(number) for number in sys.argv[1].split(",")}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
say("ready")
while True:
    number = signal.sigwait(heard)
    say(int(number))
    if number == signal.SIGTERM:
        sys.exit(int(sys.argv[2]))
"""
)
"""Says each signal of a list that it gets; TERM ends it with a status."""

FAMILY = (
    REPORT
    + """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
grandchild = os.fork()
name = "child" if grandchild else "grandchild"
say(name + " is ready")
signal.sigwait({signal.SIGUSR1})
say(name + " heard it")
if grandchild:
    os.waitpid(grandchild, 0)
"""
)

STORM = (
    REPORT
    + """
import sys
for _ in range(int(sys.argv[1])):
    between = os.fork()
    if between == 0:
        for _ in range(int(sys.argv[2])):
            if os.fork() == 0:
                os._exit(7)
        os._exit(0)
    os.waitpid(between, 0)
"""
)
"""Leaves so many times so many orphans, most of them zombies already when they become somebody else's."""
