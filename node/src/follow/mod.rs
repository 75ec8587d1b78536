//! Prow's files, followed as Prow follows them (CFG-090 to CFG-092): what stands in a directory, or in a branch of a
//! repository on the forge, becomes the next version, on the way that `config apply` takes.
//!
//! Every node may have the files; the one that holds the office acts. What it last took from there is a cursor in the
//! state, so that a new leader does not take it again, and that a version which somebody applied or rolled back by hand
//! stays until the files change. Mounts of other nodes may lag behind: what an office finds first and was taken before
//! something newer is told, and taken only once this node has seen its files change.

mod directory;
#[cfg(test)]
mod kubelet;
mod look;
mod memory;
mod message;
mod repository;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{task::spawn_blocking, time::Instant};
use tonic::Code;
use trireme_api::{ConfigDoor, ConfigHealth, blob, configs::LocalFile};
use trireme_config::FileSet;
use trireme_office::{Controller, ControllerError, Office, OfficeError};
use trireme_proto::{
    api::{ApplyConfigHeader, ApplyConfigResponse},
    state::{Alarm, Cursor, PutCursor, SetAlarm, command::Body},
};

pub(crate) use self::repository::Reach;
use self::{
    directory::{Directory, Timing},
    memory::{Judged, Refused, Seen, TakenBefore},
    repository::{Pace, Repository},
};
use crate::{configuration::role, settings::FollowSettings};

/// The cursor that holds the digests of the files that were taken.
const CURSOR: &str = "config/followed";
/// The cursor that holds the digest of the files that were refused.
const REFUSED: &str = "config/refused";
/// Bytes of a digest that tell states of the files apart.
const DIGEST_BYTES: usize = 16;
/// The alarm while the files are not taken.
const ALARM: &str = "config/followed";

/// Applies what stands in a directory while this node holds the office.
pub(crate) struct Follower {
    settings: Option<FollowSettings>,
    reach: Option<Reach>,
    door: ConfigDoor,
    health: ConfigHealth,
}

impl Follower {
    /// Without settings nothing is followed; an alarm that another node raised about its files is lowered.
    pub(crate) fn new(
        settings: Option<&FollowSettings>,
        reach: Option<Reach>,
        door: ConfigDoor,
        health: ConfigHealth,
    ) -> Self {
        Self {
            settings: settings.cloned(),
            reach,
            door,
            health,
        }
    }

    /// The author of its versions.
    pub(crate) fn author(node_id: u64) -> String {
        format!("{}node-{node_id}", memory::AUTHORS)
    }
}

/// Of a node without settings: whether others follow a directory, which stands still while this one holds the office.
fn tell_of_followed(office: &Office) {
    let view = office.view();
    let followed = view
        .config()
        .filter(|version| version.author.starts_with(memory::AUTHORS));
    if let Some(version) = followed {
        tracing::warn!(
            version = version.number,
            author = version.author,
            "this node holds the office and has no config.follow: changes of the directory that {} followed are not taken \
             until another node holds it. Set config.follow on every node, or on none",
            version.author
        );
    }
}

/// What became of one state of the files.
enum Taken {
    /// It is a new version.
    New(u64),
    /// It was taken before.
    Before,
}

/// Tells the state of the office's end, whatever ended it.
struct Told<'a>(&'a ConfigHealth);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.follows_nothing();
    }
}

#[async_trait]
impl Controller for Follower {
    fn name(&self) -> &'static str {
        "follow"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        let Some(settings) = &self.settings else {
            alarm(&office, None).await?;
            tell_of_followed(&office);
            resigned.cancelled().await;
            return Ok(());
        };
        let _told = Told(&self.health);
        let (mut source, mut seen) = self.source(settings)?;
        let mut failed = false;
        loop {
            let found = tokio::select! {
                () = resigned.cancelled() => return Ok(()),
                found = source.next(&office, failed) => found,
            };
            let started = Instant::now();
            let taken = match found {
                Ok(files) => {
                    self.take(&office, &mut seen, files, source.commit())
                        .await?
                }
                Err(trouble) => Err(trouble),
            };
            match &taken {
                Ok(Taken::New(version)) => {
                    tracing::info!(
                        version,
                        commit = source.commit(),
                        "what is followed is a new version"
                    );
                }
                Ok(Taken::Before) => {}
                Err(why) => tracing::error!(
                    why,
                    "what is followed is not taken, the former configuration stays in force"
                ),
            }
            let error = taken.as_ref().err().map(String::as_str);
            self.health
                .followed(error, source.took() + started.elapsed());
            let told = error.map(|error| (source.name(), error));
            alarm(&office, told).await?;
            failed = taken.is_err();
        }
    }
}

/// Where the files come from.
enum Source {
    Directory(Box<Directory>),
    Repository(Box<Repository>),
}

impl Source {
    async fn next(&mut self, office: &Office, failed: bool) -> Result<FileSet, String> {
        match self {
            Self::Directory(directory) => {
                let next = directory.next(failed).await;
                next.map_err(|trouble| trouble.to_string())
            }
            Self::Repository(repository) => repository.next(office, failed).await,
        }
    }

    fn took(&self) -> Duration {
        match self {
            Self::Directory(directory) => directory.took(),
            Self::Repository(repository) => repository.took(),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Directory(_) => "the watched directory",
            Self::Repository(_) => "the followed branch",
        }
    }

    /// What the files are of, if that is known.
    fn commit(&self) -> &str {
        match self {
            Self::Directory(_) => "",
            Self::Repository(repository) => repository.commit(),
        }
    }
}

impl Follower {
    /// And how to judge what comes from there.
    fn source(&self, settings: &FollowSettings) -> Result<(Source, Seen), ControllerError> {
        let layout = settings.layout();
        let Some(repo) = &settings.repo else {
            let directory = Directory::new(layout, Timing::default());
            return Ok((Source::Directory(Box::new(directory)), Seen::default()));
        };
        let Some(reach) = &self.reach else {
            // The settings were checked before the node started.
            let why = "config.follow.repo: without [github] there is no way to it";
            return Err(ControllerError::Failed(why.into()));
        };
        let repo = repo
            .parse()
            .map_err(|_| ControllerError::Failed(format!("config.follow.repo: {repo:?}").into()))?;
        let branch = settings.branch.clone();
        let repository = Repository::new(reach.clone(), repo, branch, layout, Pace::default());
        Ok((Source::Repository(Box::new(repository)), Seen::everywhere()))
    }

    /// The inner error is what is wrong with the files; the outer one begins the controller anew.
    async fn take(
        &self,
        office: &Office,
        seen: &mut Seen,
        files: FileSet,
        commit: &str,
    ) -> Result<Result<Taken, String>, ControllerError> {
        let found = spawn_blocking(move || Found::new(&files)).await;
        let found = found.map_err(|why| ControllerError::Failed(why.into()))?;
        let view = office.view();
        let value = |key| view.cursor(key).map_or("", |cursor| cursor.value.as_str());
        let taken_before = TakenBefore::parse(value(CURSOR));
        let refused_before = Refused::parse(value(REFUSED));
        let judged = seen.judge(&found.digest, &taken_before);
        let cursor = taken_before.with(&found.digest);
        let (number, author) = view.config().map_or((0, String::new()), |version| {
            (version.number, version.author.clone())
        });
        let before = message::in_force(&view);
        let message = message::words(found.version, &before, &found.sums);
        drop(view);
        let is_by_hand = !author.starts_with(memory::AUTHORS);
        let is_in_force = before == found.sums
            // The paths of what somebody applied begin where the command line was.
            || (is_by_hand && message::placeless(&before) == message::placeless(&found.sums));
        match judged {
            Judged::Newest => {
                if refused_before.is_some_and(|refused| refused.digest != found.digest) {
                    put(office, vec![(REFUSED, String::new())]).await?;
                }
                return Ok(Ok(Taken::Before));
            }
            Judged::Older if is_in_force => return Ok(Ok(Taken::Before)),
            Judged::Older => {
                return Ok(Err(format!(
                    "the files of node {} are older than version {number}: they were taken before and others since; they \
                     are taken once this node sees them change, or apply them with `trireme config apply` if they are meant",
                    office.node_id()
                )));
            }
            Judged::New => {}
        }
        office.assert_held().await?;
        let mut taken = Taken::Before;
        if !is_in_force {
            if let Some(why) = refused_before
                .as_ref()
                .and_then(|refused| refused.holds_back(&found.digest, number, &author))
            {
                return Ok(Err(why));
            }
            let max_retired_percent = self
                .settings
                .as_ref()
                .map(|settings| settings.max_retired_percent);
            let header = ApplyConfigHeader {
                message,
                source: commit.to_owned(),
                max_retired_percent,
                ..ApplyConfigHeader::default()
            };
            taken = match self.door.apply(header, &found.files).await {
                Ok(answer) if answer.unchanged => Taken::Before,
                Ok(answer) if answer.accepted => Taken::New(answer.version),
                Ok(answer) => {
                    refuse(office, refused_before, found.digest, number).await?;
                    return Ok(Err(refused(&answer)));
                }
                Err(why) if is_about_the_files(why.code()) => {
                    refuse(office, refused_before, found.digest, number).await?;
                    return Ok(Err(why.message().to_owned()));
                }
                Err(why) => return Err(ControllerError::Failed(why.into())),
            };
        }
        let mut cursors = vec![(CURSOR, cursor)];
        if refused_before.is_some() {
            cursors.push((REFUSED, String::new()));
        }
        put(office, cursors).await?;
        Ok(Ok(taken))
    }
}

/// Remembers what was refused, and the first version that it was refused against.
async fn refuse(
    office: &Office,
    before: Option<Refused>,
    digest: String,
    version: u64,
) -> Result<(), OfficeError> {
    let refused = Refused { digest, version };
    if before.as_ref() == Some(&refused) {
        return Ok(());
    }
    put(office, vec![(REFUSED, refused.cursor())]).await
}

/// An empty value forgets the cursor.
async fn put(office: &Office, values: Vec<(&str, String)>) -> Result<(), OfficeError> {
    let cursor = |(key, value): (&str, String)| Cursor {
        key: key.to_owned(),
        at_ms: if value.is_empty() { 0 } else { office.now_ms() },
        value,
        version: 0,
    };
    let cursors = values.into_iter().map(cursor).collect();
    let body = Body::PutCursor(PutCursor { cursors });
    office.propose(body).await.map(|_| ())
}

/// Whether trying again with the same files would end the same way.
fn is_about_the_files(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted
    )
}

/// The files as the door takes them, and what tells them from others.
struct Found {
    files: Vec<LocalFile>,
    sums: message::Sums,
    /// Over all of the sums; the same wherever the files are mounted.
    digest: String,
    version: Option<String>,
}

impl Found {
    fn new(set: &FileSet) -> Self {
        let file = |(path, content): (&str, &Arc<[u8]>)| LocalFile {
            role: role(&set.layout, path),
            path: path.to_owned(),
            content: Bytes::copy_from_slice(content),
        };
        let files: Vec<LocalFile> = set.iter().map(file).collect();
        let mut sums = message::Sums::new();
        let mut parts = Vec::new();
        for file in &files {
            let sum = blob::name(&file.content).sha256;
            let relative = memory::relative(&set.layout, &file.path);
            parts.push((relative, file.role.clone(), sum.clone()));
            sums.insert(file.path.clone(), (file.role.clone(), sum));
        }
        parts.sort();
        let mut digest = Sha256::new();
        for (path, role, sum) in &parts {
            for part in [role.as_bytes(), path.as_bytes(), sum] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
        let digest = digest.finalize();
        Self {
            files,
            sums,
            digest: hex::encode(&digest[..DIGEST_BYTES]),
            version: message::version(set),
        }
    }
}

fn refused(answer: &ApplyConfigResponse) -> String {
    if let Some(gone) = answer.retired.as_ref().filter(|gone| gone.refused) {
        return format!(
            "it would retire {} of {} contexts and {} of {} jobs, more than the {} % that config.follow.max_retired_percent \
             allows: apply these files once with `trireme config apply --yes` if all of that is meant to go",
            gone.contexts, gone.contexts_before, gone.jobs, gone.jobs_before, gone.max_percent
        );
    }
    let errors: Vec<_> = answer
        .diagnostics
        .iter()
        .filter(|found| found.severity == "error")
        .collect();
    let first = errors.first().map_or_else(
        || "it was refused without a reason".to_owned(),
        |first| {
            let place = match (first.line, first.column) {
                (0, _) => String::new(),
                (line, 0) => format!(":{line}"),
                (line, column) => format!(":{line}:{column}"),
            };
            let field = match first.field.as_str() {
                "" => String::new(),
                field => format!("{field}: "),
            };
            format!("{}{place}: {field}{}", first.file, first.message)
        },
    );
    match errors.len() {
        0 | 1 => first,
        number => format!("{number} errors, the first: {first}"),
    }
}

/// Raises or lowers the alarm, unless it is as it should be.
async fn alarm(office: &Office, error: Option<(&str, &str)>) -> Result<(), OfficeError> {
    let view = office.view();
    let there = view.alarm(ALARM);
    let message = error.map(|(what, error)| {
        format!("{what} is not taken, the former configuration stays: {error}")
    });
    let is_right = match (&message, there) {
        (None, None) => true,
        // The state may keep less of it.
        (Some(message), Some(there)) => message.starts_with(&there.message),
        _ => false,
    };
    drop(view);
    if is_right {
        return Ok(());
    }
    let alarm = SetAlarm {
        clear: message.is_none(),
        alarm: Some(Alarm {
            key: ALARM.to_owned(),
            message: message.unwrap_or_default(),
            raised_ms: office.now_ms(),
            node_id: office.node_id(),
        }),
    };
    match office.propose(Body::SetAlarm(alarm)).await {
        // There are as many alarms as there may be: enough to look at.
        Err(why @ OfficeError::Rejected { .. }) => {
            tracing::warn!(%why, "the alarm is not raised");
            Ok(())
        }
        told => told.map(|_| ()),
    }
}
