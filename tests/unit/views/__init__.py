"""The kernel, without I/O."""
