"""Logs, traces and metrics: how a process tells what it does. None of it is on the critical path."""
