"""The migrations of the schema `analytics`."""
