"""Dead letters on real parts: the breaker, the outbox, redrive, discard, purge."""
