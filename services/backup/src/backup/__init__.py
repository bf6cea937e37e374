"""The backup service: dumps of databases, and the proof that they come back."""
