"""Proof that the product keeps its promises; laid out by what a test needs to run."""
