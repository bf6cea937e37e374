"""An example of a domain of one's own: orders that are reserved, paid and shipped, or none of it."""
