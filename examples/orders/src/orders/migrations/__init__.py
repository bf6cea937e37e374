"""The migrations of the schema `orders`."""
