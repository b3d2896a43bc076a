"""Seeded bugs: each is put into a copy of the checkout, alone, and a named test must find it."""
