"""Rebuild from offset zero, verify, swap, and repair one key. See docs/operating.md."""
