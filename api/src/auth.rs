//! Who may come in by the client door, and what for.
//!
//! One table says which role each method needs, one function stands before all routes: it finds out who asks, refuses
//! who may not, and writes one `audit` line for every call that changes something, or would have.

use std::{
    borrow::Cow,
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::{Code, Status};
use trireme_proto::state::Role;
use trireme_raft::Store;
use trireme_state::{State, TokenHash};

use crate::{
    Metrics,
    entrance::{Inside, is_grpc},
};

/// Target of the lines that tell who changed what.
pub const AUDIT: &str = "audit";
/// What every token of ours begins with, so that one that leaked is recognised.
pub const TOKEN_PREFIX: &str = "trireme_";
/// A credential longer than this is none.
const MAX_CREDENTIAL_BYTES: usize = 4096;
/// Characters of the operator's token in a file: fewer can be guessed.
const MIN_OPERATOR_TOKEN: usize = 32;

/// What whoever shows no token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// Everything: for a node on loopback that only its own host reaches.
    #[default]
    Operator,
    /// Read.
    Viewer,
    /// Nothing.
    None,
}

/// How clients are told apart.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    pub anonymous: Anonymous,
    /// Whoever knows this file's content is an operator; read again when it changes.
    pub operator_token_file: Option<PathBuf>,
}

/// SHA-256 of a whole token: all that is kept of it.
#[must_use]
pub fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A token nobody has seen: 256 random bits.
#[must_use]
pub fn new_token() -> String {
    let bits: [u8; 32] = rand::random();
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bits);
    format!("{TOKEN_PREFIX}{text}")
}

/// What a method asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Open,
    /// To be somebody.
    Anyone,
    Viewer,
    Submitter,
    Operator,
    /// To be an agent; whose is checked where it is known which.
    Agent,
}

/// Every method of the client door: what it needs, and whether calls go to the audit log.
const METHODS: [(&str, Need, bool); 42] = [
    ("/grpc.health.v1.Health/Check", Need::Open, false),
    ("/grpc.health.v1.Health/Watch", Need::Open, false),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Need::Viewer,
        false,
    ),
    ("/trireme.api.v1.AgentService/Attach", Need::Agent, true),
    (
        "/trireme.api.v1.AgentService/ListAgents",
        Need::Viewer,
        false,
    ),
    ("/trireme.api.v1.AgentService/Register", Need::Agent, true),
    // Signs of life, every few seconds: they change nothing that is recorded.
    ("/trireme.api.v1.AgentService/Renew", Need::Agent, false),
    (
        "/trireme.api.v1.AuthService/CreateToken",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.AuthService/ListTokens",
        Need::Viewer,
        false,
    ),
    (
        "/trireme.api.v1.AuthService/RevokeToken",
        Need::Operator,
        true,
    ),
    ("/trireme.api.v1.AuthService/WhoAmI", Need::Anyone, false),
    (
        "/trireme.api.v1.ClusterService/AddNode",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.ClusterService/PromoteNode",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.ClusterService/RemoveNode",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.ClusterService/ReplaceNode",
        Need::Operator,
        true,
    ),
    // It holds log lines, which name what they name.
    (
        "/trireme.api.v1.ClusterService/CollectDebug",
        Need::Operator,
        true,
    ),
    // It writes to the log.
    (
        "/trireme.api.v1.ClusterService/CompareReplicas",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.ClusterService/InspectNode",
        Need::Viewer,
        false,
    ),
    // The whole state, hashes of tokens included.
    (
        "/trireme.api.v1.ClusterService/SaveSnapshot",
        Need::Operator,
        true,
    ),
    // It keeps a disk busy.
    (
        "/trireme.api.v1.ClusterService/ScrubNode",
        Need::Operator,
        true,
    ),
    ("/trireme.api.v1.ClusterService/Status", Need::Viewer, false),
    (
        "/trireme.api.v1.ClusterService/StepDown",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.ClusterService/TransferLeader",
        Need::Operator,
        true,
    ),
    ("/trireme.api.v1.ConfigService/Apply", Need::Operator, true),
    ("/trireme.api.v1.ConfigService/GetFile", Need::Viewer, false),
    (
        "/trireme.api.v1.ConfigService/GetVersion",
        Need::Viewer,
        false,
    ),
    ("/trireme.api.v1.ConfigService/History", Need::Viewer, false),
    (
        "/trireme.api.v1.ConfigService/PutContents",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.ConfigService/Rollback",
        Need::Operator,
        true,
    ),
    (
        "/trireme.api.v1.DeliveryService/GetDelivery",
        Need::Viewer,
        false,
    ),
    (
        "/trireme.api.v1.DeliveryService/ListDeliveries",
        Need::Viewer,
        false,
    ),
    (
        "/trireme.api.v1.DeliveryService/Redrive",
        Need::Operator,
        true,
    ),
    ("/trireme.api.v1.JobService/AbortJob", Need::Submitter, true),
    (
        "/trireme.api.v1.JobService/CreateJob",
        Need::Submitter,
        true,
    ),
    ("/trireme.api.v1.JobService/GetJob", Need::Viewer, false),
    ("/trireme.api.v1.JobService/ListJobs", Need::Viewer, false),
    ("/trireme.api.v1.JobService/ReadLog", Need::Viewer, false),
    ("/trireme.api.v1.JobService/RerunJob", Need::Submitter, true),
    (
        "/trireme.api.v1.PoolService/ListIntents",
        Need::Viewer,
        false,
    ),
    ("/trireme.api.v1.PoolService/ListPools", Need::Viewer, false),
    (
        "/trireme.api.v1.PoolService/ListPullRequests",
        Need::Viewer,
        false,
    ),
    ("/trireme.api.v1.WatchService/Watch", Need::Viewer, false),
];

fn method(path: &str) -> Option<(Need, bool)> {
    METHODS
        .iter()
        .find(|(known, _, _)| *known == path)
        .map(|(_, need, audited)| (*need, *audited))
}

/// Whether a role is enough; None = somebody who showed no token and may nothing without.
fn suffices(role: Option<Role>, need: Need) -> bool {
    match need {
        Need::Open => true,
        Need::Anyone => role.is_some(),
        Need::Viewer => matches!(role, Some(Role::Viewer | Role::Submitter | Role::Operator)),
        Need::Submitter => matches!(role, Some(Role::Submitter | Role::Operator)),
        Need::Operator => role == Some(Role::Operator),
        Need::Agent => matches!(role, Some(Role::Agent | Role::Operator)),
    }
}

fn needed(need: Need) -> &'static str {
    match need {
        Need::Open | Need::Anyone => "any role",
        Need::Viewer => "the role viewer, submitter or operator",
        Need::Submitter => "the role submitter or operator",
        Need::Operator => "the role operator",
        Need::Agent => "the role agent",
    }
}

/// A role as people write it.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "none",
        Role::Viewer => "viewer",
        Role::Submitter => "submitter",
        Role::Operator => "operator",
        Role::Agent => "agent",
    }
}

/// What a call did, for its audit line.
#[derive(Debug, Default)]
struct Noted {
    object: String,
    revision: u64,
}

/// Who calls; an extension of every request that got in.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    name: String,
    role: Option<Role>,
    expires_ms: i64,
    is_anonymous: bool,
    /// Id of the token that was shown; none of the operator's file.
    token: Option<String>,
    noted: Arc<Mutex<Noted>>,
}

impl Who {
    fn new(name: String, role: Option<Role>) -> Self {
        Self {
            name,
            role,
            expires_ms: 0,
            is_anonymous: false,
            token: None,
            noted: Arc::default(),
        }
    }

    /// A part of this node, in whose name a door speaks.
    pub(crate) fn part(name: String) -> Self {
        Self::new(name, Some(Role::Operator))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn role(&self) -> Role {
        self.role.unwrap_or_default()
    }

    pub(crate) fn expires_ms(&self) -> i64 {
        self.expires_ms
    }

    /// Who an agent that he registers belongs to: nobody in particular when he cannot be told from others.
    pub(crate) fn owner(&self) -> &str {
        if self.is_anonymous { "" } else { &self.name }
    }

    /// Whether he may speak for what belongs to `owner`.
    pub(crate) fn owns(&self, owner: &str) -> bool {
        owner.is_empty() || owner == self.owner()
    }

    /// Whether what let him in still does: a stream may outlive its token.
    pub(crate) fn is_still_good(&self, state: &State) -> Result<(), Status> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        if state.token(token).is_none() {
            return Err(Status::unauthenticated("the token was revoked"));
        }
        if self.expires_ms != 0 && self.expires_ms <= now_ms() {
            return Err(Status::unauthenticated("the token has expired"));
        }
        Ok(())
    }

    /// What the call is about.
    pub(crate) fn about(&self, object: impl Into<String>) {
        let object = object.into();
        let mut noted = lock(&self.noted);
        if noted.object.is_empty() {
            noted.object = object;
        }
    }

    pub(crate) fn at(&self, revision: u64) {
        lock(&self.noted).revision = revision;
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// Why the operator's token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OperatorTokenError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{}: a token of at least {MIN_OPERATOR_TOKEN} characters is needed on one line; `trireme token generate` prints one",
        path.display()
    )]
    Weak { path: PathBuf },
}

type Stamp = Option<(SystemTime, u64, u64)>;

/// The file of the first operator, as a hash.
struct OperatorFile {
    path: PathBuf,
    held: Mutex<(Stamp, TokenHash)>,
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

impl OperatorFile {
    fn open(path: PathBuf) -> Result<Self, OperatorTokenError> {
        let now = stamp(&path);
        let hash = Self::read(&path)?;
        Ok(Self {
            path,
            held: Mutex::new((now, hash)),
        })
    }

    fn read(path: &Path) -> Result<TokenHash, OperatorTokenError> {
        let text = fs::read_to_string(path).map_err(|source| OperatorTokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        let token = text.trim();
        let single = !token.contains(char::is_whitespace);
        if token.len() < MIN_OPERATOR_TOKEN || token.len() > MAX_CREDENTIAL_BYTES || !single {
            return Err(OperatorTokenError::Weak {
                path: path.to_owned(),
            });
        }
        Ok(token_hash(token))
    }

    fn hash(&self) -> TokenHash {
        let mut held = lock(&self.held);
        let now = stamp(&self.path);
        if now != held.0 {
            held.0 = now;
            match Self::read(&self.path) {
                Ok(hash) => held.1 = hash,
                Err(why) => {
                    tracing::warn!(%why, "the new operator token is unusable, the former one stays good");
                }
            }
        }
        held.1
    }
}

/// What stands before all routes.
pub(crate) struct Gate {
    store: Store,
    anonymous: Anonymous,
    operator: Option<OperatorFile>,
    /// Paths that need nobody's leave: the forge signs, probes tell nothing, and a hook of Prow's that forwards its
    /// deliveries has no token to ask for help with (HOOK-035).
    open: [String; 4],
    metrics: Arc<Metrics>,
}

/// Why somebody is not let in.
struct Refused {
    code: Code,
    message: String,
}

impl Gate {
    pub(crate) fn new(
        store: Store,
        config: AuthConfig,
        webhook_path: &str,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OperatorTokenError> {
        Ok(Self {
            store,
            anonymous: config.anonymous,
            operator: config
                .operator_token_file
                .map(OperatorFile::open)
                .transpose()?,
            open: [
                webhook_path.to_owned(),
                "/healthz".to_owned(),
                "/readyz".to_owned(),
                format!("{}/help", webhook_path.trim_end_matches('/')),
            ],
            metrics,
        })
    }

    /// Pages and metrics are for viewers.
    fn need(&self, path: &str) -> (Need, bool) {
        if let Some(known) = method(path) {
            return known;
        }
        match self.open.iter().position(|open| open == path) {
            // A webhook is a change.
            Some(at) => (Need::Open, at == 0),
            None => (Need::Viewer, false),
        }
    }

    fn anonymous(&self, address: Option<IpAddr>) -> Who {
        let role = match self.anonymous {
            Anonymous::Operator => Some(Role::Operator),
            Anonymous::Viewer => Some(Role::Viewer),
            Anonymous::None => None,
        };
        let name = match address {
            Some(address) => format!("anonymous:{}", address.to_canonical()),
            None => "anonymous".to_owned(),
        };
        Who {
            is_anonymous: true,
            ..Who::new(name, role)
        }
    }

    fn bearer(&self, token: &str) -> Result<Who, Refused> {
        let refused = |message: String| Refused {
            code: Code::Unauthenticated,
            message,
        };
        let hash = token_hash(token);
        if let Some(operator) = &self.operator
            && bool::from(operator.hash().ct_eq(&hash))
        {
            return Ok(Who::new("operator-file".to_owned(), Some(Role::Operator)));
        }
        let view = self.store.view();
        // What an order of hashes tells by its timing says nothing about any token.
        let known = view
            .token_by_hash(&hash)
            .filter(|known| bool::from(known.sha256.as_ref().ct_eq(&hash)));
        let Some(known) = known else {
            return Err(refused(
                "this token is not known to the cluster, or was revoked: `trireme token list` shows those that are, an \
                 operator makes one with `trireme token create`"
                    .to_owned(),
            ));
        };
        if known.expires_ms != 0 && known.expires_ms <= now_ms() {
            return Err(refused(format!(
                "the token {} has expired: an operator makes a new one with `trireme token create --name {} --role {}`",
                known.name,
                known.name,
                role_name(known.role())
            )));
        }
        Ok(Who {
            expires_ms: known.expires_ms,
            token: Some(known.id.clone()),
            ..Who::new(format!("token:{}", known.name), Some(known.role()))
        })
    }

    /// Who asks. A token that is no good is never taken for none.
    fn identify(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        is_method: bool,
    ) -> Result<Who, Refused> {
        let Some(credential) = headers.get(header::AUTHORIZATION) else {
            return Ok(self.anonymous(address));
        };
        let unreadable = || Refused {
            code: Code::Unauthenticated,
            message: if is_method {
                "authorization: must be `Bearer <token>`"
            } else {
                "Authorization: must be `Bearer <token>`, or `Basic` with the token as the password"
            }
            .to_owned(),
        };
        let text = credential
            .to_str()
            .ok()
            .filter(|text| text.len() <= MAX_CREDENTIAL_BYTES)
            .ok_or_else(unreadable)?;
        let (scheme, value) = text.split_once(' ').ok_or_else(unreadable)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.bearer(value.trim());
        }
        // What browsers ask their users for. Not for methods: a browser sends it by itself, also for other people's forms.
        if scheme.eq_ignore_ascii_case("basic") && !is_method {
            let decoded = STANDARD.decode(value.trim()).map_err(|_| unreadable())?;
            let decoded = String::from_utf8(decoded).map_err(|_| unreadable())?;
            let (_, password) = decoded.split_once(':').ok_or_else(unreadable)?;
            return self.bearer(password);
        }
        Err(unreadable())
    }

    fn admit(&self, who: &Who, need: Need) -> Result<(), Refused> {
        if suffices(who.role, need) {
            return Ok(());
        }
        if who.is_anonymous {
            return Err(Refused {
                code: Code::Unauthenticated,
                message: format!(
                    "this needs {}: show a token, with --token-file or TRIREME_TOKEN; an operator makes one with `trireme \
                     token create`",
                    needed(need)
                ),
            });
        }
        Err(Refused {
            code: Code::PermissionDenied,
            message: format!(
                "{} has the role {}, this needs {}",
                who.name,
                role_name(who.role()),
                needed(need)
            ),
        })
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Stands before everything that is served.
pub(crate) async fn guard(gate: &Gate, mut request: Request, inside: &Inside) -> Response {
    let path = request.uri().path().to_owned();
    let is_method = method(&path).is_some();
    let (need, audited) = gate.need(&path);
    let address = request
        .extensions()
        .get::<ConnectInfo<Remote>>()
        .map(|info| info.0.0.ip());
    let (who, response) = if need == Need::Open {
        let who = Who::new(if audited { "hook" } else { "anybody" }.to_owned(), None);
        if let Some(guid) = request.headers().get("x-github-delivery") {
            who.about(String::from_utf8_lossy(guid.as_bytes()));
        }
        (who, inside.answer(request).await)
    } else {
        let identified = gate.identify(request.headers(), address, is_method);
        let admitted = identified
            .map_err(|refused| (gate.anonymous(address), refused))
            .and_then(|who| match gate.admit(&who, need) {
                Ok(()) => Ok(who),
                Err(refused) => Err((who, refused)),
            });
        match admitted {
            Ok(who) => {
                request.extensions_mut().insert(who.clone());
                (who, inside.answer(request).await)
            }
            Err((who, refused)) => {
                gate.metrics.refused(refused.code);
                (who, answer(&refused, is_method || is_grpc(&request)))
            }
        }
    };
    if audited {
        audit(&path, &who, address, &response);
    }
    response
}

fn answer(refused: &Refused, is_grpc: bool) -> Response {
    if is_grpc {
        return Status::new(refused.code, refused.message.clone()).into_http();
    }
    let text = format!("{}\n", refused.message);
    if refused.code == Code::PermissionDenied {
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let mut response = (StatusCode::UNAUTHORIZED, text).into_response();
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"trireme: any user, a token as the password\""),
    );
    response
}

/// One line per change, made or refused.
fn audit(path: &str, who: &Who, address: Option<IpAddr>, response: &Response) {
    let noted = lock(&who.noted);
    let status = Status::from_header_map(response.headers()).map(|status| status.code());
    let outcome = match status {
        Some(Code::Ok) | None if response.status().is_success() => Cow::Borrowed("ok"),
        Some(code) => format!("{code:?}").into(),
        None => response.status().as_u16().to_string().into(),
    };
    let address = address
        .map(|address| address.to_string())
        .unwrap_or_default();
    tracing::info!(
        target: AUDIT,
        who = who.name,
        method = path,
        object = noted.object,
        outcome = &*outcome,
        revision = noted.revision,
        address,
        "audit"
    );
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// What is served: every method has its place in the table, and the table names nothing else.
    #[test]
    fn every_method_says_what_it_needs() {
        let mut served = Vec::new();
        for set in [
            trireme_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ] {
            let set = prost_types::FileDescriptorSet::decode(set).unwrap();
            for file in set.file {
                // Its own listener.
                if file.package() == "trireme.raft.v1" {
                    continue;
                }
                for service in &file.service {
                    for method in &service.method {
                        let package = file.package();
                        served.push(format!("/{package}.{}/{}", service.name(), method.name()));
                    }
                }
            }
        }
        served.sort();
        let mut known: Vec<&str> = METHODS.iter().map(|(path, _, _)| *path).collect();
        known.sort_unstable();
        assert_eq!(served, known);
    }

    #[test]
    fn roles_are_enough_for_what_they_are_for() {
        let allowed = |role| {
            [
                Need::Open,
                Need::Anyone,
                Need::Viewer,
                Need::Submitter,
                Need::Operator,
                Need::Agent,
            ]
            .map(|need| suffices(role, need))
        };
        assert_eq!(allowed(None), [true, false, false, false, false, false]);
        assert_eq!(
            allowed(Some(Role::Unspecified)),
            [true, true, false, false, false, false]
        );
        assert_eq!(
            allowed(Some(Role::Viewer)),
            [true, true, true, false, false, false]
        );
        assert_eq!(
            allowed(Some(Role::Submitter)),
            [true, true, true, true, false, false]
        );
        assert_eq!(allowed(Some(Role::Operator)), [true; 6]);
        assert_eq!(
            allowed(Some(Role::Agent)),
            [true, true, false, false, false, true]
        );
    }

    /// Whoever changes something is named in the log.
    #[test]
    fn what_needs_more_than_reading_is_audited() {
        for (path, need, audited) in METHODS {
            let changes = matches!(need, Need::Submitter | Need::Operator | Need::Agent);
            let silent = path.ends_with("/Renew");
            assert_eq!(audited, changes && !silent, "{path}");
        }
    }

    #[test]
    fn a_token_is_256_random_bits() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one, other);
        assert_eq!(one.len(), TOKEN_PREFIX.len() + 43);
        assert!(one.starts_with(TOKEN_PREFIX));
    }

    #[test]
    fn the_operators_file_is_read_again_and_a_weak_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let write = |text: &str| {
            let new = dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, &path).unwrap();
        };
        write("short");
        let why = OperatorFile::open(path.clone()).err().unwrap();
        assert!(why.to_string().contains("trireme token generate"));
        let (one, other) = (new_token(), new_token());
        write(&format!("{one}\n"));
        let file = OperatorFile::open(path.clone()).unwrap();
        assert_eq!(file.hash(), token_hash(&one));
        write(&other);
        assert_eq!(file.hash(), token_hash(&other));
        write("short");
        assert_eq!(file.hash(), token_hash(&other));
    }
}
