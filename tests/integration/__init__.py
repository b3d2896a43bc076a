"""Tests on real parts: PostgreSQL, Kafka, the registry."""
