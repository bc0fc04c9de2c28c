"""Data sets of the paper brought to this machine: fetched, unpacked and checked."""
