"""Becomes a command that ends with the process that started it: python launch.py PARENT CORES …

A program of its own, because what runs between fork and exec in a process with threads, such as
those of JAX and TensorFlow, may wait for a lock that nobody opens any more.
"""

import ctypes
import os
import signal
import sys


def main():
    parent, cores, *command = sys.argv[1:]
    if cores:  # their numbers, with commas between; nothing: all
        os.sched_setaffinity(0, map(int, cores.split(",")))
    if sys.platform == "linux":
        death_signal = 1  # PR_SET_PDEATHSIG: killed with its parent, or two sweeps would meet
        ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)
    if os.getppid() != int(parent):  # that died before it was asked for
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
