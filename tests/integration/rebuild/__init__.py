"""Rebuild, verify, swap and repair on real parts."""
