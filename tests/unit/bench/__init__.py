"""The arithmetic of the benchmarks; no timing is asserted anywhere."""
