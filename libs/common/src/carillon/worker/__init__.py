"""The worker: takes deliveries, executes attempts, and writes how they ended."""
