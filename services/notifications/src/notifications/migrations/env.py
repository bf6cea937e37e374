"""Runs the migrations of the schema `notifications`, and of nothing else."""

from carillon.migrations import run_migrations
from notifications.models import metadata

run_migrations(metadata)
