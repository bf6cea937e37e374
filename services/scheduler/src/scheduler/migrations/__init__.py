"""The migrations of the schema `scheduler`."""
