"""When things happen: schedules, and the trigger events that they fire."""
