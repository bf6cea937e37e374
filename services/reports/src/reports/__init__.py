"""Documents worth sending, from what the platform measured. Begin with `app.py`."""
