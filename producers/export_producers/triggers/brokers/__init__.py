"""Triggers that read message brokers: RabbitMQ, NATS JetStream and Kafka."""
