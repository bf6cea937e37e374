"""PostgreSQL and Valkey as plain programs in a folder, for machines where no server is given."""
