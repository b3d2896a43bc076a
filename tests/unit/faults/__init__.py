"""The checkers are tested too: a judge that cannot find a fault proves nothing."""
