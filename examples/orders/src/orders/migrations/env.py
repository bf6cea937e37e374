"""Runs the migrations of the schema `orders`, and of nothing else."""

from carillon.migrations import run_migrations
from orders.models import metadata

run_migrations(metadata)
