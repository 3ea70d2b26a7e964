"""Links: what a network was asked to be. Pure arithmetic here, real time in the pacer."""
