"""Runs the migrations of the schema `carillon`, and of nothing else."""

from carillon.ledger.tables import PARTITION, metadata
from carillon.migrations import run_migrations

run_migrations(metadata, partitions=PARTITION)
