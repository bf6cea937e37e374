"""PostgreSQL and Valkey as plain programs in a folder, for machines where no server is given."""

from carillon.embedded.errors import EmbeddedServerError
from carillon.embedded.servers import Servers, noted_addresses

__all__ = ["EmbeddedServerError", "Servers", "noted_addresses"]
