"""The ledger: the tables that hold runs, attempts, events, schedules and fires. They are the truth."""
