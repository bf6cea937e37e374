"""Runs the migrations of the schema `analytics`, and of nothing else."""

from analytics.models import metadata
from carillon.migrations import run_migrations

run_migrations(metadata)
