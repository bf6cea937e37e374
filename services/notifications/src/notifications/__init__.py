"""Messages to people and systems, and the record of their delivery."""
