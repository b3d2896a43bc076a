"""Tests without I/O, done in seconds."""
