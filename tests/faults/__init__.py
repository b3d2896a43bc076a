"""What must hold while things break: one file per promise, and the oracle that judges."""
