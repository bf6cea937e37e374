"""The history of the schema `backup`."""
