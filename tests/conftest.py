"""What every test of the workspace may ask for."""
