//! Starts, kills, restarts and replaces node processes.
