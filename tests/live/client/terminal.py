"""Runs a command on a terminal of its own; what the terminal got is written to stdout, byte for byte."""

import os
import pty
import sys


def read(terminal):
    data = os.read(terminal, 4096)
    os.write(1, data)
    return data


# Nobody types: the command's input stays open and empty.
os.environ["TERM"] = "xterm-256color"
status = pty.spawn(sys.argv[1:], read, lambda _: b"")
sys.exit(os.waitstatus_to_exitcode(status))
