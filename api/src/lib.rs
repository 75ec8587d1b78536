//! Doors of every node: gRPC services and client, webhooks, metrics, health.
