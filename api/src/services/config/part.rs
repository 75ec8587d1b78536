//! The door for configurations as a part of this node uses it: what `config apply` does, without a connection.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;
use trireme_proto::{
    api::{ApplyConfigHeader, ApplyConfigResponse},
    state::ConfigFile,
};

use super::{Door, apply};
use crate::{
    auth::{AUDIT, Who},
    configs::LocalFile,
    services::Services,
};

/// Contents that are put at once.
const PUTS_AT_ONCE: usize = 16;
/// How often it is begun again because contents left the cluster while others came.
const ROUNDS: usize = 3;

/// See the module.
#[derive(Clone)]
pub struct ConfigDoor {
    services: Services,
    part: String,
}

impl ConfigDoor {
    pub(crate) fn new(services: Services, part: String) -> Self {
        Self { services, part }
    }

    /// Applies a configuration in the name of the part: puts what the cluster lacks, then has it validated and committed,
    /// or refused.
    ///
    /// # Errors
    /// As clients get them; a configuration with errors is no error of this.
    pub async fn apply(
        &self,
        header: ApplyConfigHeader,
        files: &[LocalFile],
    ) -> Result<ApplyConfigResponse, Status> {
        let answer = self.try_to_apply(&header, files).await;
        // It did not come in by the listener, where every change leaves its line.
        let (outcome, revision) = match &answer {
            Ok(answer) => ("ok".to_owned(), answer.revision),
            Err(why) => (format!("{:?}", why.code()), 0),
        };
        tracing::info!(
            target: AUDIT,
            who = self.part,
            method = "/trireme.api.v1.ConfigService/Apply",
            object = "config",
            outcome,
            revision,
            address = "",
            "audit"
        );
        answer
    }

    async fn try_to_apply(
        &self,
        header: &ApplyConfigHeader,
        files: &[LocalFile],
    ) -> Result<ApplyConfigResponse, Status> {
        let who = Who::part(self.part.clone());
        let door = Door(self.services.clone());
        let manifest: Vec<ConfigFile> = files.iter().map(LocalFile::named).collect();
        apply::check_manifest(&manifest)?;
        for _ in 0..ROUNDS {
            let answer = door.apply_files(&who, header, manifest.clone(), 0).await?;
            if answer.missing.is_empty() {
                return Ok(answer);
            }
            let missing = answer.missing.iter();
            let missing: Vec<_> = missing
                .filter_map(|at| Some(files.get(*at as usize)?.content.clone()))
                .collect();
            stream::iter(missing)
                .map(|content| self.services.put_blob(&who, content))
                .buffer_unordered(PUTS_AT_ONCE)
                .try_for_each(|_| std::future::ready(Ok(())))
                .await?;
        }
        Err(Status::aborted(
            "contents left the cluster while others were put: they are put again",
        ))
    }
}
