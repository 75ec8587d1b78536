//! Every bound of the replicated state, by name. Bytes, milliseconds or counts, as the name says.

/// Largest log entry, encoded.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;
/// Commands that may be packed into one entry.
pub const MAX_BATCH_COMMANDS: usize = 64;
/// Largest packed entry; one that holds a single command may be as large as [`MAX_ENTRY_BYTES`].
pub const MAX_BATCH_BYTES: usize = 256 << 10;

/// Data of one blob chunk.
pub const BLOB_CHUNK: usize = 512 << 10;
/// Chunks of one blob: 64 MiB as stored.
pub const MAX_BLOB_CHUNKS: u32 = 128;
/// Uncompressed size of one blob.
pub const MAX_BLOB_BYTES: u64 = 64 << 20;
/// Stored bytes of all blobs that nothing refers to yet: a configuration that comes in whole, twice.
pub const MAX_UNREFERENCED_BLOB_BYTES: u64 = 1 << 30;
/// The same below feature level 4.
pub const MAX_UNREFERENCED_BLOB_BYTES_BEFORE_PAGES: u64 = 512 << 20;
/// How long a blob stays without a reference.
pub const BLOB_GRACE_MS: i64 = 60 * MINUTE_MS;

/// A webhook's body, uncompressed.
pub const MAX_DELIVERY: u64 = 25 << 20;
/// A webhook's body that travels inside its command, compressed.
pub const MAX_INLINE_PAYLOAD: usize = 256 << 10;
/// Of a delivery that are kept, and their names and values together.
pub const MAX_HEADERS: usize = 32;
pub const MAX_HEADER_BYTES: usize = 8 << 10;
/// How long the guid of a delivery is remembered.
pub const DELIVERY_MEMORY_MS: i64 = 24 * 60 * MINUTE_MS;
/// Guids remembered. At the bound deliveries are refused: forgetting one early could run a webhook twice.
pub const DELIVERY_MEMORY: usize = 2_000_000;
/// Deliveries in memory, handled or not.
pub const MAX_DELIVERIES: usize = 500_000;

/// Answers to client requests that are remembered.
pub const REQUEST_MEMORY: usize = 100_000;
/// How long they are remembered.
pub const REQUEST_MEMORY_MS: i64 = 10 * MINUTE_MS;
/// A client's request id.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// Jobs in memory, complete or not.
pub const MAX_JOBS: usize = 500_000;
/// Prow's ProwJob JSON of one job.
pub const MAX_PROWJOB_BYTES: usize = 256 << 10;
/// Jobs that one command creates, or that it aborts.
pub const MAX_JOBS_PER_COMMAND: usize = 1000;
/// Pull requests of one batch job.
pub const MAX_PULLS_PER_JOB: usize = 1000;
/// Reporters of one job.
pub const MAX_REPORTERS: usize = 16;

/// Rows of one job's history; beyond, the oldest after the first [`FIRST_JOB_EVENTS`] leaves.
pub const MAX_JOB_EVENTS: usize = 32;
/// Rows that stay whatever comes: how the job came to be, and its first attempts.
pub const FIRST_JOB_EVENTS: usize = 8;
/// The cause in one row; longer ones are cut.
pub const MAX_CAUSE_BYTES: usize = 256;
/// The actor in one row; longer ones are cut.
pub const MAX_ACTOR_BYTES: usize = 128;
/// One row, encoded: cause, actor, and 32 bytes for numbers and tags.
pub const MAX_JOB_EVENT_BYTES: usize = MAX_CAUSE_BYTES + MAX_ACTOR_BYTES + 32;

/// Plugins enabled for one delivery.
pub const MAX_PLUGINS: usize = 128;
/// Writes to a forge in one plan.
pub const MAX_EFFECTS_PER_PLAN: usize = 1000;

/// Any one record, encoded, blobs aside.
pub const MAX_RECORD_BYTES: usize = 900 << 10;
/// Identifiers, logins, names, refs, shas.
pub const MAX_NAME_BYTES: usize = 1024;
/// Reasons, descriptions, errors; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 4096;

/// Pull requests mirrored.
pub const MAX_PULL_REQUESTS: usize = 1_000_000;
/// Pull requests or contexts in one command.
pub const MAX_PULLS_PER_COMMAND: usize = 1000;
/// Contexts of one head.
pub const MAX_CONTEXTS: usize = 2000;
/// How long a closed pull request stays in the mirror.
pub const CLOSED_PULL_MEMORY_MS: i64 = 7 * 24 * 60 * MINUTE_MS;
/// Closed pull requests in the mirror; beyond, the one closed first leaves early.
pub const CLOSED_PULL_MEMORY: usize = 20_000;

/// Merge pools.
pub const MAX_POOLS: usize = 100_000;
/// How long a settled merge intent stays in memory.
pub const INTENT_MEMORY_MS: i64 = 7 * 24 * 60 * MINUTE_MS;
/// Settled intents in memory; beyond, the one settled first leaves early.
pub const INTENT_MEMORY: usize = 50_000;
/// Merge intents that are open at once.
pub const MAX_OPEN_INTENTS: usize = 100_000;

/// Configuration versions in memory; older ones are in the archive.
pub const CONFIG_MEMORY: usize = 20;
/// Files of one configuration.
pub const MAX_CONFIG_FILES: usize = 50_000;
/// All files of one configuration, uncompressed.
pub const MAX_CONFIG_BYTES: u64 = 512 << 20;
/// Files of a configuration that holds them itself, without pages.
pub const MAX_INLINE_CONFIG_FILES: usize = 10_000;
/// All files of one that holds them itself, uncompressed.
pub const MAX_INLINE_CONFIG_BYTES: u64 = 64 << 20;
/// Files of one page. Pages end where the content says; on the average after a quarter of this.
pub const MAX_CONFIG_PAGE_FILES: usize = 256;
/// One page, encoded: several fit into one packed entry.
pub const MAX_CONFIG_PAGE_BYTES: usize = 128 << 10;
/// Pages of one configuration.
pub const MAX_PAGES_PER_CONFIG: usize = 4096;
/// Pages in memory, named by a version or not.
pub const MAX_CONFIG_PAGES: usize = 65_536;

/// Agents, lost ones included.
pub const MAX_AGENTS: usize = 10_000;
/// How long a lost agent is remembered.
pub const LOST_AGENT_MEMORY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Tokens of clients and agents, expired ones included.
pub const MAX_TOKENS: usize = 10_000;
/// A token's name.
pub const MAX_TOKEN_NAME_BYTES: usize = 100;
/// How long an expired token is still listed.
pub const EXPIRED_TOKEN_MEMORY_MS: i64 = 7 * 24 * 60 * MINUTE_MS;

/// Cursors, and timers.
pub const MAX_CURSORS: usize = 200_000;
/// Timers.
pub const MAX_TIMERS: usize = 200_000;
/// Cursors in one command.
pub const MAX_CURSORS_PER_COMMAND: usize = 1000;
/// Alarms.
pub const MAX_ALARMS: usize = 1000;

/// Comparisons of the replicas' states that are remembered.
pub const AUDIT_MEMORY: usize = 8;
/// Nodes that answer in one of them, voters or not.
pub const MAX_AUDIT_REPORTS: usize = 64;

// Bytes of all records of a kind, encoded: what a node's memory must have room for, about three times over. Counts
// alone would allow half a million jobs of 256 KiB each. Enforced from feature level 2 on.
//
// | kind          | records                | bytes   | mean at both bounds |
// |---------------|------------------------|---------|---------------------|
// | jobs          | MAX_JOBS               | 2 GiB   | 4 KiB               |
// | deliveries    | MAX_DELIVERIES         | 2 GiB   | 4 KiB               |
// | plans         | those of deliveries    | 1 GiB   |                     |
// | pull requests | MAX_PULL_REQUESTS      | 2 GiB   | 2 KiB               |
// | pools         | MAX_POOLS              | 512 MiB | 5 KiB               |
// | intents       | MAX_OPEN_INTENTS, INTENT_MEMORY | 512 MiB | 3 KiB      |
// | cursors       | MAX_CURSORS            | 256 MiB | 1 KiB               |
// | timers        | MAX_TIMERS             | 256 MiB | 1 KiB               |
// | agents        | MAX_AGENTS             | 64 MiB  | 6 KiB               |
// | configuration pages | MAX_CONFIG_PAGES | 512 MiB | 8 KiB               |
// | blobs         | of configurations and deliveries | 4 GiB |             |

/// Jobs.
pub const MAX_JOBS_BYTES: u64 = 2 << 30;
/// Deliveries with their inline payloads.
pub const MAX_DELIVERIES_BYTES: u64 = 2 << 30;
/// Plans.
pub const MAX_PLANS_BYTES: u64 = 1 << 30;
/// Mirrored pull requests.
pub const MAX_PULL_REQUESTS_BYTES: u64 = 2 << 30;
/// Merge pools.
pub const MAX_POOLS_BYTES: u64 = 512 << 20;
/// Merge intents, open or settled.
pub const MAX_INTENTS_BYTES: u64 = 512 << 20;
/// Cursors.
pub const MAX_CURSORS_BYTES: u64 = 256 << 20;
/// Timers.
pub const MAX_TIMERS_BYTES: u64 = 256 << 20;
/// Agents.
pub const MAX_AGENTS_BYTES: u64 = 64 << 20;
/// Pages of configurations.
pub const MAX_CONFIG_PAGES_BYTES: u64 = 512 << 20;
/// Blob chunks as stored, referenced or not.
pub const MAX_BLOBS_BYTES: u64 = 4 << 30;

/// Records that one command sweeps.
pub const MAX_SWEEP: usize = 1000;
/// Expired rows that one entry removes on its way, per kind, so that no entry pays for a long silence.
pub const PRUNE_PER_ENTRY: usize = 256;

/// Largest value of the archive; larger records are cut into chunks.
pub const MAX_ARCHIVE_VALUE: usize = 64 << 10;

const MINUTE_MS: i64 = 60_000;
