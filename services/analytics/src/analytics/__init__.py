"""Runs and events of the platform, rolled up by the hour and the day."""
