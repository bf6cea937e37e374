"""The migrations of the schema `gateway`."""
