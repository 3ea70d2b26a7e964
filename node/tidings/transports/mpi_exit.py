"""How a process ends that has used MPI.

MPICH says goodbye to mpiexec (``cmd=finalize``) not in MPI_Finalize but from an exit handler. A
process that skips its handlers has died, as mpiexec sees it, and all ranks that are still ending
are killed. Yet the handlers of all other libraries would take seconds, and may hang.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NoReturn

_registered = False
_finalized = False


def spare_other_libraries() -> None:
    """To be called right before MPI begins: of exit handlers, only later ones will be run.

    They run in the reverse order of their registration; the one registered here ends the process.
    """
    global _registered
    libc = ctypes.CDLL(None)
    # void (*)(int status, void *): _exit ignores the second argument
    if hasattr(libc, "on_exit"):
        _registered = libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None) == 0


def has_finalized() -> None:
    """MPI has been ended in order: its handlers may wait for mpiexec's answer, and will get it."""
    global _finalized
    _finalized = _registered


def end(code: int) -> NoReturn:
    """End this process at once, with what MPI has left to say; outputs are flushed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if _finalized:
        ctypes.CDLL(None).exit(code)
    os._exit(code)
