"""The formats of a report: each module writes one, and reads back what it wrote to add it up again."""
