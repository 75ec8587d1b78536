//! Controllers: taking and leaving office, keyed work queue.
