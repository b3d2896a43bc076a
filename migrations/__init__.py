"""Migrations: the history of the schema, and what makes one history fit every build."""
