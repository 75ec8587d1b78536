//! Compiles the .proto files with protox, so that building needs no protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 5] = [
    "trireme/state/v1/records.proto",
    "trireme/state/v1/command.proto",
    "trireme/state/v1/change.proto",
    "trireme/raft/v1/raft.proto",
    "trireme/api/v1/api.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps iterate in key order, so that encoding a record is deterministic.
        .btree_map(".")
        .bytes(".")
        // Some 600 bytes: a list that grows would move them each time.
        .boxed(".trireme.state.v1.NewJob.job")
        // Most jobs in memory have none.
        .boxed(".trireme.state.v1.Job.lease")
        .compile_fds(descriptors)?;
    Ok(())
}
