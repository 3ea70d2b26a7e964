"""What attacks may know that need others' messages."""

from __future__ import annotations

from typing import Literal

#: of the honest neighbours, or of all honest nodes (in the simulator)
Others = Literal["neighbors", "omniscient"]
