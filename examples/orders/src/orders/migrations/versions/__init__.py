"""Every version of the schema `orders`, in order."""
