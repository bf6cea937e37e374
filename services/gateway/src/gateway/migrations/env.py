"""Runs the migrations of the schema `gateway`, and of nothing else."""

from carillon.migrations import run_migrations
from gateway.models import metadata

run_migrations(metadata)
