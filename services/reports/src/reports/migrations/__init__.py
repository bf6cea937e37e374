"""The history of the schema `reports`."""
