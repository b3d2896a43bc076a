"""What a rebuild decides without a server."""
