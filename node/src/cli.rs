//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    commands::{
        checkconfig::{self, CheckconfigArgs},
        config::{ApplyArgs, DiffArgs, HistoryArgs, RollbackArgs, ShowArgs},
    },
    go_flags::with_values,
    output::Format,
};

/// CI/CD as Prow does it, with a memory of its own.
///
/// Try it first, with nothing set up:
///   trireme demo                 watch a pull request go from webhook to merge on three nodes
///   trireme dev                  the same world, left running for you
///
/// Exit codes:
///    0  done
///    1  it failed; the reason is on standard error
///    2  the command line is wrong
///    3  the cluster could not be reached
///    4  there is no such object
///    5  the configuration has errors
///    6  it is not allowed: no token, or one whose role is not enough
///    7  the configuration has warnings, and --strict was given
///   70  this build is too old for the log: install the newer version
///   74  the data directory, or a snapshot file, cannot be trusted, or its disk failed or is full
///   75  a node's state differed from the majority's: start that node again, it then fetches another
///   77  this node was removed from its cluster
#[derive(Debug, Parser)]
#[command(name = "trireme", version, verbatim_doc_comment, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one node.
    Serve(ServeArgs),
    /// Run a worker that leases jobs and runs them as processes on this host.
    Agent(AgentArgs),
    /// Show the whole story on this machine: three nodes, two agents, a sandbox forge, pull requests merged.
    Demo(DemoArgs),
    /// Start the demo's world and leave it running, to play with.
    Dev(DevArgs),
    /// List or show what the cluster holds.
    #[command(subcommand)]
    Get(GetCommand),
    /// Print a run's build log.
    Logs(LogsArgs),
    /// Abort a run.
    Abort(JobArgs),
    /// Run a job again.
    Rerun(JobArgs),
    /// Have tried again what was given up about webhooks.
    #[command(subcommand)]
    Deliveries(crate::commands::deliveries::DeliveriesCommand),
    /// Apply, list and roll back configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the cluster and change its members.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Make, list and revoke the tokens of people, programs and agents.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make an authority and certificates for nodes and doors; works offline.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Save the cluster's state and history as one file, look into one, begin a new cluster from one.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Begin a new cluster from one node's disk, when the others are lost for good. Offline.
    Recover(RecoverArgs),
    /// Collect what helps to find out what is wrong.
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Check Prow configuration files without a cluster.
    #[command(args_override_self = true, mut_args(checkconfig::as_prows), after_long_help = checkconfig::table_of_warnings())]
    Checkconfig(Box<CheckconfigArgs>),
    /// Print the JSON Schema of a kind of configuration file, for editors.
    Schema(crate::commands::schema::SchemaArgs),
    /// Set webhooks up at GitHub, for orgs and repositories, as Prow's ghhook does.
    ///
    /// A webhook is known by its URL: it is made, or made what is asked for if it is there. Nothing
    /// is changed without --confirm.
    ///
    ///   trireme hooks --hook-url https://ci.example.com/hook --hmac-path hmac \
    ///     --github-token-path token --repo acme --repo other/widget --confirm
    #[command(verbatim_doc_comment, args_override_self = true, mut_args(with_values))]
    Hooks(Box<crate::commands::hooks::HooksArgs>),
    /// Make a ProwJob for a job of the configuration: print it, or run it and wait.
    #[command(args_override_self = true, mut_args(with_values))]
    Mkpj(Box<crate::commands::mkpj::MkpjArgs>),
    /// Print the pod that runs a ProwJob.
    #[command(args_override_self = true, mut_args(with_values))]
    Mkpod(crate::commands::mkpod::MkpodArgs),
    /// The pod utilities, as agents start them.
    #[command(hide = true, disable_help_flag = true)]
    Podutils {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// Where the cluster is and how to answer.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Doors of the cluster's nodes, comma-separated; the first that answers is used.
    #[arg(
        long,
        env = "TRIREME_SERVER",
        default_value = "127.0.0.1:8888",
        value_name = "[https://]HOST:PORT,..."
    )]
    pub server: String,
    #[command(flatten)]
    pub access: Access,
    /// text for people, json for programs.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// How to prove oneself, and whom to trust. A token may also be in TRIREME_TOKEN itself.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
    /// Authorities (PEM) that signed the nodes' certificates, instead of the system's; addresses are then https.
    #[arg(long, env = "TRIREME_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with the token to show.
    #[arg(long, env = "TRIREME_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The node's settings; deploy/trireme.example.toml explains every key.
    #[arg(long, env = "TRIREME_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Overrides node_id.
    #[arg(long, env = "TRIREME_NODE_ID")]
    pub node_id: Option<u64>,
    /// Overrides data_dir.
    #[arg(long, env = "TRIREME_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Overrides listen.
    #[arg(long, env = "TRIREME_LISTEN")]
    pub listen: Option<String>,
    /// Overrides peer.listen.
    #[arg(long, env = "TRIREME_PEER_LISTEN")]
    pub peer_listen: Option<String>,
    #[command(flatten)]
    pub github: crate::settings::GitHubFlags,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Doors of the cluster's nodes, comma-separated.
    #[arg(long, env = "TRIREME_SERVER", value_name = "[https://]HOST:PORT,...")]
    pub server: String,
    #[command(flatten)]
    pub access: Access,
    /// How this agent is called in lists.
    #[arg(long)]
    pub name: String,
    /// Jobs it runs at once.
    #[arg(long, default_value_t = 4)]
    pub capacity: u32,
    /// Build clusters it stands for: the `cluster` of Prow's job configuration.
    #[arg(long, default_value = "default", value_delimiter = ',')]
    pub clusters: Vec<String>,
    /// Where it keeps its identity, working directories and logs not yet uploaded.
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many nodes: 1 or 3.
    #[arg(long, default_value_t = 3, value_parser = parse_nodes)]
    pub nodes: u64,
    /// Kill the leader's process while jobs run and the batch is under test, and bring it back.
    #[arg(long)]
    pub kill_leader: bool,
    /// Keep everything (logs, data, artifacts) in this directory instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// text: a timeline; json: one object per event.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes: 1 or 3.
    #[arg(long, default_value_t = 1, value_parser = parse_nodes)]
    pub nodes: u64,
    /// Keep everything in this directory instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum GetCommand {
    /// Runs, newest first.
    Jobs(GetJobsArgs),
    /// One run, also an archived one, and what happened to it: when, by whom and why.
    Job(JobArgs),
    /// Tide's pools and merge intents.
    Pools(Target),
    /// Webhooks taken, newest first, and what was planned for them.
    Deliveries(crate::commands::deliveries::ListArgs),
    /// One webhook, also an archived one: its payload, and what each plugin did about it and why not.
    Delivery(crate::commands::deliveries::ShowArgs),
    /// Configuration versions, newest first.
    Configs(HistoryArgs),
    /// Worker processes and what they hold.
    Agents(Target),
}

#[derive(Debug, Args)]
pub struct GetJobsArgs {
    /// Only of this repository.
    #[arg(long, value_name = "ORG/REPO")]
    pub repo: Option<String>,
    /// presubmit, postsubmit, periodic or batch.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// scheduling, triggered, pending, success, failure, aborted or error.
    #[arg(long)]
    pub state: Option<String>,
    /// Only of this pull request's author.
    #[arg(long)]
    pub author: Option<String>,
    /// Only of this job name.
    #[arg(long)]
    pub job: Option<String>,
    /// Only of this pull request.
    #[arg(long)]
    pub pull: Option<u64>,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// The columns that kubectl shows of Prow's ProwJobs.
    #[arg(long)]
    pub wide: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct JobArgs {
    /// The run's id, as `trireme get jobs` shows it.
    pub id: String,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The run's id, as `trireme get jobs` shows it.
    pub id: String,
    /// Go on until the run is complete.
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check files and make them the cluster's configuration, whole or not at all.
    ///
    /// Only what the cluster does not have is uploaded. Nothing changes when the files are those of the version in force, when
    /// they have errors, or when they would retire many contexts or jobs and --yes is not said.
    ///
    ///   trireme config apply .                              a checkout, files in the customary places
    ///   trireme config apply --git . --ref origin/main      a commit of a local repository, without a checkout
    ///   trireme config apply --config-path C --job-config-path J --plugin-config P
    #[command(verbatim_doc_comment, args_override_self = true, mut_args(with_values))]
    Apply(ApplyArgs),
    /// What differs between two versions, or between a version and files: jobs and contexts first, then the text.
    ///
    ///   trireme config diff                 the version in force and the one before
    ///   trireme config diff 3 7
    ///   trireme config diff --dir .         the version in force and files, as `apply` would take them
    #[command(verbatim_doc_comment, args_override_self = true, mut_args(with_values))]
    Diff(DiffArgs),
    /// Show a job after all defaulting, and where its fields come from.
    #[command(args_override_self = true, mut_args(with_values))]
    Expand(Box<crate::commands::expand::ExpandArgs>),
    /// Say by which rule a job runs, or does not run, for a pull request.
    #[command(args_override_self = true, mut_args(with_values))]
    Why(Box<crate::commands::why::WhyArgs>),
    /// All versions there ever were, newest first.
    History(HistoryArgs),
    /// Bring back an earlier version, as a new one.
    Rollback(RollbackArgs),
    /// What stands in a version, or in a file of it.
    Show(ShowArgs),
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Members, leader and lag, as one node sees them; works without a leader.
    Status {
        /// Ask every member's door as well: who answers, versions, lag, equal state, clocks.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Expect a node that is not started yet: it becomes a learner.
    ///
    /// A node with `cluster.join` in its settings adds itself when it starts; nothing needs to be done before. This keeps
    /// an id and a peer address for it: start it with them, an empty data directory and `cluster.join`.
    Add {
        node_id: u64,
        /// Its peer address.
        #[arg(long)]
        peer: String,
        /// The address of its door.
        #[arg(long)]
        api: String,
        #[command(flatten)]
        target: Target,
    },
    /// Make a learner that has caught up a voter.
    Promote {
        node_id: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Take a node out.
    Remove {
        node_id: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Put a learner that has caught up in the place of a node whose disk is lost.
    Replace {
        old_id: u64,
        new_id: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Hand the leadership to another voter.
    TransferLeader {
        node_id: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Let whoever leads hand the leadership to the voter that is best able to take it.
    StepDown(Target),
    /// Have all members compare their states now; ends with 0 only when all are equal.
    Compare(Target),
    /// Have every member read its files again and check them, at low speed; ends with 74 when something is damaged.
    Scrub {
        /// Only this one.
        #[arg(long, value_name = "ID")]
        node: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write state and history, as they are at one revision, into a new file; the cluster goes on meanwhile.
    Save {
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Verify a snapshot file and say what is in it. Offline.
    Inspect {
        file: PathBuf,
        /// text for people, json for programs.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Make the data directory of a new cluster's first node from a saved snapshot. Offline.
    Restore {
        file: PathBuf,
        /// Absent or empty.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// An id that no node of the snapshot's cluster ever had.
        #[arg(long)]
        node_id: u64,
        /// host:port under which other nodes will reach this one.
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// host:port of this node's door.
        #[arg(long, value_name = "HOST:PORT")]
        api: String,
        /// text for people, json for programs.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Says that the other nodes are lost for good, and that what only they had may be lost.
    #[arg(long)]
    pub force_new_cluster: bool,
    /// Of the node whose disk is to go on; it must not run.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// An id that no node of the cluster ever had; the next one when absent.
    #[arg(long)]
    pub node_id: Option<u64>,
    /// host:port under which other nodes will reach this one; as before when absent.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Option<String>,
    /// host:port of this node's door; as before when absent.
    #[arg(long, value_name = "HOST:PORT")]
    pub api: Option<String>,
    /// Go on with a state that was found to differ from the majority's.
    #[arg(long)]
    pub accept_diverged: bool,
    /// Do it without asking.
    #[arg(long)]
    pub yes: bool,
    /// text for people, json for programs.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Status, metrics, settings without secrets and recent log lines of every node that answers, as a .tar.gz.
    Bundle {
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, once.
    Create {
        /// What is done with it is attributed to this name.
        #[arg(long)]
        name: String,
        /// viewer: reads; submitter: also creates, aborts and reruns jobs; operator: everything; agent: leases jobs.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// How long it is good, as in 12h or 30d; without, until it is revoked.
        #[arg(long, value_parser = parse_period, value_name = "PERIOD")]
        expires: Option<Period>,
        #[command(flatten)]
        target: Target,
    },
    /// Tokens by name; what they are is not kept.
    List(Target),
    /// Make a token useless.
    Revoke {
        /// As `trireme token list` shows it.
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Say who the cluster takes you for.
    Whoami(Target),
    /// Print a random token that no cluster knows yet, for auth.operator_token_file.
    Generate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    Viewer,
    Submitter,
    Operator,
    Agent,
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub seconds: u64,
}

fn parse_period(text: &str) -> Result<Period, String> {
    let wrong = || "a number with s, m, h or d behind it, as in 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| wrong())?;
    let seconds = count.checked_mul(seconds).filter(|seconds| *seconds > 0);
    seconds.map(|seconds| Period { seconds }).ok_or_else(wrong)
}

#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make an authority: ca.pem, which everybody may see, and ca-key.pem, which nobody else may.
    Ca {
        /// The cluster's name, for people.
        #[arg(long, default_value = crate::settings::DEFAULT_CLUSTER)]
        cluster: String,
        /// Where the files go.
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        #[arg(long, default_value_t = 3650)]
        days: u32,
    },
    /// Make a certificate for the peer listener of one node.
    Node {
        /// cluster.name in the nodes' settings.
        #[arg(long, default_value = crate::settings::DEFAULT_CLUSTER)]
        cluster: String,
        /// The node's node_id.
        #[arg(long)]
        id: u64,
        /// Where the authority is, and where the files go.
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Make a certificate for the door of one node, or of all.
    Server {
        /// A name or address that clients call the door by; may be given several times.
        #[arg(long = "host", required = true, value_name = "NAME_OR_IP")]
        hosts: Vec<String>,
        /// How the files are called: NAME.pem and NAME-key.pem.
        #[arg(long, default_value = "server")]
        name: String,
        /// Where the authority is, and where the files go.
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
}

/// Two nodes survive no more than one does.
fn parse_nodes(text: &str) -> Result<u64, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3; two nodes survive the loss of neither".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_numbers_with_a_unit() {
        let seconds = |text: &str| parse_period(text).map(|period| period.seconds).ok();
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("2m"), Some(120));
        assert_eq!(seconds("12h"), Some(43_200));
        assert_eq!(seconds("30d"), Some(2_592_000));
        for wrong in ["", "d", "30", "30w", "-1d", "0d", "1.5h", "3\u{e9}"] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
    }
}
