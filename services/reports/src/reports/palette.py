"""The colours of a report, shared by charts, pages and sheets."""

from __future__ import annotations

#: By state; told apart by people who see red and green as one colour, and in print.
COLOURS = {"completed": "#2f6f8f", "failed": "#c8452d", "cancelled": "#a9b1ba", "other": "#dfa32f"}
#: Text, lesser text, and lines.
INK, FAINT, RULE = "#1f2a33", "#5d6973", "#dfe4e8"
#: Heads of tables, and what lies behind figures and totals.
HEAD, PAPER = "#2f5568", "#f4f6f7"
