"""The migrations of the schema `notifications`."""
