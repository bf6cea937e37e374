"""What Carillon does when things break, and the proof: `python -m chaos`, from the root of the repository."""
