//! Configuration versions: applied whole or refused whole.

use std::collections::BTreeSet;

use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        ApplyConfigRequest, ApplyConfigResponse, ConfigHistoryRequest, ConfigHistoryResponse,
        ConfigUpload, GetConfigFileRequest, GetConfigFileResponse, RollbackConfigRequest,
        config_service_server::ConfigService,
    },
    state::{ConfigFile, ConfigVersion, PutConfig, command::Body},
};
use trireme_state::ids::config_root;

use super::{Services, caller, page_size};
use crate::{Checked, blob};

/// Of one configuration, uncompressed.
const MAX_CONFIG_BYTES: usize = 64 * 1024 * 1024;
const ROLES: [&str; 4] = ["main", "plugins", "job", "supplemental"];

pub(crate) struct Door(pub(crate) Services);

fn check_uploads(files: &[ConfigUpload]) -> Result<(), Status> {
    let total: usize = files.iter().map(|file| file.content.len()).sum();
    if total > MAX_CONFIG_BYTES {
        return Err(Status::invalid_argument(format!(
            "the files are {total} bytes together; a configuration is at most {MAX_CONFIG_BYTES}"
        )));
    }
    if files.iter().filter(|file| file.role == "main").count() != 1 {
        return Err(Status::invalid_argument(
            "exactly one file must have the role main (config.yaml)",
        ));
    }
    let mut seen = BTreeSet::new();
    for file in files {
        if !ROLES.contains(&file.role.as_str()) {
            return Err(Status::invalid_argument(format!(
                "{}: role {:?} is none of {ROLES:?}",
                file.path, file.role
            )));
        }
        if file.path.is_empty() || !seen.insert((file.role.as_str(), file.path.as_str())) {
            return Err(Status::invalid_argument(format!(
                "{:?}: every file needs a path of its own",
                file.path
            )));
        }
    }
    Ok(())
}

fn answer(checked: Checked) -> ApplyConfigResponse {
    ApplyConfigResponse {
        accepted: checked.accepted,
        presubmits: checked.presubmits,
        postsubmits: checked.postsubmits,
        periodics: checked.periodics,
        diagnostics: checked.diagnostics,
        ..ApplyConfigResponse::default()
    }
}

#[async_trait]
impl ConfigService for Door {
    /// A configuration with errors is answered with `accepted: false` and what is wrong; nothing changes.
    async fn apply(
        &self,
        request: Request<ApplyConfigRequest>,
    ) -> Result<Response<ApplyConfigResponse>, Status> {
        let who = caller(&request);
        let mut asked = request.into_inner();
        check_uploads(&asked.files)?;
        asked
            .files
            .sort_by(|a, b| (&a.role, &a.path).cmp(&(&b.role, &b.path)));
        let mut response = answer(self.0.check.check(asked.files.clone()).await);
        if asked.dry_run || !response.accepted {
            return Ok(Response::new(response));
        }
        let mut files = Vec::with_capacity(asked.files.len());
        for file in asked.files {
            let blob = self.0.put_blob(&who, file.content).await?;
            files.push(ConfigFile {
                role: file.role,
                path: file.path,
                blob: Some(blob),
            });
        }
        let config = ConfigVersion {
            root: config_root(&files).to_vec().into(),
            files,
            author: who.name().to_owned(),
            message: asked.message,
            presubmits: response.presubmits,
            postsubmits: response.postsubmits,
            periodics: response.periodics,
            ..ConfigVersion::default()
        };
        let body = Body::PutConfig(PutConfig {
            config: Some(config),
            expected_current: asked.expected_current,
        });
        let (revision, done) = self.0.propose(&who, &asked.request_id, body).await?;
        response.version = done.config_version;
        response.revision = revision;
        Ok(Response::new(response))
    }

    async fn history(
        &self,
        request: Request<ConfigHistoryRequest>,
    ) -> Result<Response<ConfigHistoryResponse>, Status> {
        let view = self.0.view(None).await?;
        let mut versions: Vec<ConfigVersion> = view
            .config_versions()
            .map(|version| ConfigVersion::clone(version))
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.number));
        versions.truncate(page_size(request.get_ref().limit));
        Ok(Response::new(ConfigHistoryResponse {
            versions,
            current: view.config().map_or(0, |version| version.number),
            revision: view.revision,
        }))
    }

    /// A rollback is a new version with an old one's files, checked again by what runs now.
    async fn rollback(
        &self,
        request: Request<RollbackConfigRequest>,
    ) -> Result<Response<ApplyConfigResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let view = self.0.view(None).await?;
        let old = view.config_version(asked.version).ok_or_else(|| {
            Status::not_found(format!(
                "no configuration version {}; `trireme config history` lists them",
                asked.version
            ))
        })?;
        let mut uploads = Vec::with_capacity(old.files.len());
        for file in &old.files {
            let content = match &file.blob {
                Some(name) => {
                    blob::read(&view, name).map_err(|why| Status::data_loss(why.to_string()))?
                }
                None => {
                    return Err(Status::data_loss(format!(
                        "{}: no content is recorded",
                        file.path
                    )));
                }
            };
            uploads.push(ConfigUpload {
                role: file.role.clone(),
                path: file.path.clone(),
                content,
            });
        }
        let mut response = answer(self.0.check.check(uploads).await);
        if !response.accepted {
            return Ok(Response::new(response));
        }
        let config = ConfigVersion {
            author: who.name().to_owned(),
            message: format!("rollback to version {}", asked.version),
            rollback_of: asked.version,
            presubmits: response.presubmits,
            postsubmits: response.postsubmits,
            periodics: response.periodics,
            number: 0,
            ..ConfigVersion::clone(old)
        };
        let body = Body::PutConfig(PutConfig {
            config: Some(config),
            expected_current: view.config().map_or(0, |version| version.number),
        });
        let (revision, done) = self.0.propose(&who, &asked.request_id, body).await?;
        response.version = done.config_version;
        response.revision = revision;
        Ok(Response::new(response))
    }

    async fn get_file(
        &self,
        request: Request<GetConfigFileRequest>,
    ) -> Result<Response<GetConfigFileResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(None).await?;
        let version = view.config_version(asked.version).ok_or_else(|| {
            Status::not_found(format!("no configuration version {}", asked.version))
        })?;
        let name = version
            .files
            .iter()
            .find(|file| file.path == asked.path)
            .and_then(|file| file.blob.as_ref())
            .ok_or_else(|| {
                Status::not_found(format!(
                    "version {} has no file {:?}",
                    asked.version, asked.path
                ))
            })?;
        let content = blob::read(&view, name).map_err(|why| Status::data_loss(why.to_string()))?;
        Ok(Response::new(GetConfigFileResponse { content }))
    }
}
