"""Runs the migrations of the schema `backup`, and of nothing else."""

from backup.models import metadata
from carillon.migrations import run_migrations

run_migrations(metadata)
