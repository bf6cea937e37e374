"""The steps of the schema `backup`, oldest first."""
