"""Runs the migrations of the schema `scheduler`, and of nothing else."""

from carillon.migrations import run_migrations
from scheduler.models import metadata

run_migrations(metadata)
