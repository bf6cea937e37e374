"""Runs the migrations of the schema `reports`, and of nothing else."""

from carillon.migrations import run_migrations
from reports.models import metadata

run_migrations(metadata)
