//! One binary: serve, dev, demo, agent and the operator's commands.
