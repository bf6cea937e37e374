"""Every version of the schema `notifications`, in order."""
