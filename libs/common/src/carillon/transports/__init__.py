"""What carries runs to workers and events to listeners: RabbitMQ, or PostgreSQL itself."""

from carillon.transports.port import Acknowledge, Consumer, Transport

__all__ = ["Acknowledge", "Consumer", "Transport"]
