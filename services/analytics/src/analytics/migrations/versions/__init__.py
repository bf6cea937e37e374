"""Every version of the schema `analytics`, in order."""
