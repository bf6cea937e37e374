"""Durable functions: ordinary Python whose awaited steps are recorded, so that it goes on where it stopped."""
