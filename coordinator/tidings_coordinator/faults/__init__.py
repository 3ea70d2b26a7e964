"""Faults: what is asked for, when it happens, to whom, and whether it did."""
