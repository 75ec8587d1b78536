//! Filling a decoration from defaults and checking the outcome (POD-015, POD-016).

use crate::decoration::{
    CensoringOptions, DecorationConfig, GcsConfiguration, Resources, SchedulingOptions,
    UtilityImages,
};
use crate::gcs_paths::{BucketError, PathStrategy, StoragePath};

/// Why a decoration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecorationError {
    /// No `utility_images`.
    #[error("utility image config is not specified")]
    NoUtilityImages,
    /// Some images are missing.
    #[error("the following utility images are not specified: [{}]", quoted(.0))]
    MissingImages(Vec<&'static str>),
    /// No `gcs_configuration`.
    #[error("GCS upload configuration is not specified")]
    NoGcsConfiguration,
    /// The storage settings are wrong.
    #[error("GCS configuration is invalid: {0}")]
    Gcs(#[from] GcsConfigurationError),
    /// Two ways to authenticate at once.
    #[error("both OAuth token and SSH key secrets are specified")]
    OauthAndSsh,
}

/// Why storage settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GcsConfigurationError {
    /// The bucket is no path.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A value of `mediaTypes` is no media type.
    #[error("invalid extension media type {0:?}: mime: {1}")]
    MediaType(String, &'static str),
    /// An unknown `path_strategy`.
    #[error("gcs_path_strategy must be one of \"legacy\", \"explicit\", or \"single\"")]
    Strategy,
    /// `legacy` and `single` need `default_org` and `default_repo`.
    #[error("default org and repo must be provided for GCS strategy {0:?}")]
    NoDefaultRepo(String),
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
    quoted.join(" ")
}

fn or_text(own: &mut String, default: &str) {
    if own.is_empty() {
        default.clone_into(own);
    }
}

fn or_value<T: Clone>(own: &mut Option<T>, default: &Option<T>) {
    if own.is_none() {
        own.clone_from(default);
    }
}

fn or_list<T: Clone>(own: &mut Vec<T>, default: &[T]) {
    if own.is_empty() {
        *own = default.to_vec();
    }
}

/// Merges where both sides are set, else takes the one that is.
fn merge_with<T: Clone>(own: &mut Option<T>, default: &Option<T>, merge: impl FnOnce(&mut T, &T)) {
    match (own.as_mut(), default) {
        (Some(own), Some(default)) => merge(own, default),
        (None, Some(default)) => *own = Some(default.clone()),
        (_, None) => {}
    }
}

impl DecorationConfig {
    /// Own values, else those of `default`; nested groups field by field (POD-015).
    pub fn apply_default(own: Option<&Self>, default: Option<&Self>) -> Option<Self> {
        let mut merged = own.cloned();
        merge_with(&mut merged, &default.cloned(), Self::fill_from);
        merged
    }

    fn fill_from(&mut self, d: &Self) {
        merge_with(
            &mut self.utility_images,
            &d.utility_images,
            UtilityImages::fill_from,
        );
        merge_with(&mut self.resources, &d.resources, Resources::fill_from);
        merge_with(
            &mut self.gcs_configuration,
            &d.gcs_configuration,
            GcsConfiguration::fill_from,
        );
        merge_with(
            &mut self.censoring_options,
            &d.censoring_options,
            CensoringOptions::fill_from,
        );
        merge_with(
            &mut self.scheduling_options,
            &d.scheduling_options,
            SchedulingOptions::fill_from,
        );
        or_value(&mut self.timeout, &d.timeout);
        or_value(&mut self.grace_period, &d.grace_period);
        or_value(&mut self.gcs_credentials_secret, &d.gcs_credentials_secret);
        or_value(&mut self.s3_credentials_secret, &d.s3_credentials_secret);
        or_value(
            &mut self.default_service_account_name,
            &d.default_service_account_name,
        );
        or_list(&mut self.ssh_key_secrets, &d.ssh_key_secrets);
        or_list(&mut self.ssh_host_fingerprints, &d.ssh_host_fingerprints);
        or_value(&mut self.skip_cloning, &d.skip_cloning);
        or_value(&mut self.cookiefile_secret, &d.cookiefile_secret);
        or_value(&mut self.oauth_token_secret, &d.oauth_token_secret);
        or_list(&mut self.github_api_endpoints, &d.github_api_endpoints);
        or_text(&mut self.github_app_id, &d.github_app_id);
        or_value(
            &mut self.github_app_private_key_secret,
            &d.github_app_private_key_secret,
        );
        or_value(&mut self.censor_secrets, &d.censor_secrets);
        or_value(
            &mut self.upload_ignores_interrupts,
            &d.upload_ignores_interrupts,
        );
        or_value(
            &mut self.set_limit_equals_memory_request,
            &d.set_limit_equals_memory_request,
        );
        or_value(&mut self.default_memory_request, &d.default_memory_request);
        or_value(&mut self.pod_pending_timeout, &d.pod_pending_timeout);
        or_value(&mut self.pod_running_timeout, &d.pod_running_timeout);
        or_value(
            &mut self.pod_unscheduled_timeout,
            &d.pod_unscheduled_timeout,
        );
        or_value(&mut self.run_as_user, &d.run_as_user);
        or_value(&mut self.run_as_group, &d.run_as_group);
        or_value(&mut self.fs_group, &d.fs_group);
        or_value(&mut self.blobless_fetch, &d.blobless_fetch);
        or_list(&mut self.sparse_checkout_files, &d.sparse_checkout_files);
    }

    /// # Errors
    /// The first thing that is missing or wrong (POD-016).
    pub fn validate(&self) -> Result<(), DecorationError> {
        let images = self
            .utility_images
            .as_ref()
            .ok_or(DecorationError::NoUtilityImages)?;
        let missing: Vec<&'static str> = [
            (&images.clonerefs, "clonerefs"),
            (&images.initupload, "initupload"),
            (&images.entrypoint, "entrypoint"),
            (&images.sidecar, "sidecar"),
        ]
        .into_iter()
        .filter_map(|(image, name)| image.is_empty().then_some(name))
        .collect();
        if !missing.is_empty() {
            return Err(DecorationError::MissingImages(missing));
        }
        self.gcs_configuration
            .as_ref()
            .ok_or(DecorationError::NoGcsConfiguration)?
            .validate()?;
        if self.oauth_token_secret.is_some() && !self.ssh_key_secrets.is_empty() {
            return Err(DecorationError::OauthAndSsh);
        }
        Ok(())
    }
}

impl UtilityImages {
    fn fill_from(&mut self, d: &Self) {
        or_text(&mut self.clonerefs, &d.clonerefs);
        or_text(&mut self.initupload, &d.initupload);
        or_text(&mut self.entrypoint, &d.entrypoint);
        or_text(&mut self.sidecar, &d.sidecar);
    }
}

impl Resources {
    fn fill_from(&mut self, d: &Self) {
        or_value(&mut self.clonerefs, &d.clonerefs);
        or_value(&mut self.initupload, &d.initupload);
        or_value(&mut self.place_entrypoint, &d.place_entrypoint);
        or_value(&mut self.sidecar, &d.sidecar);
    }
}

impl CensoringOptions {
    fn fill_from(&mut self, d: &Self) {
        or_value(&mut self.censoring_concurrency, &d.censoring_concurrency);
        or_value(&mut self.censoring_buffer_size, &d.censoring_buffer_size);
        or_value(&mut self.include_directories, &d.include_directories);
        or_value(&mut self.exclude_directories, &d.exclude_directories);
        or_value(&mut self.minimum_secret_length, &d.minimum_secret_length);
    }
}

impl SchedulingOptions {
    fn fill_from(&mut self, d: &Self) {
        or_value(&mut self.affinity, &d.affinity);
        or_value(&mut self.tolerations, &d.tolerations);
    }
}

impl GcsConfiguration {
    fn fill_from(&mut self, d: &Self) {
        or_text(&mut self.bucket, &d.bucket);
        or_text(&mut self.path_prefix, &d.path_prefix);
        or_text(&mut self.path_strategy, &d.path_strategy);
        or_text(&mut self.default_org, &d.default_org);
        or_text(&mut self.default_repo, &d.default_repo);
        // Upstream lets the default win where both name an extension, which nobody means (CFG-067).
        for (extension, media_type) in &d.media_types {
            let own = self.media_types.entry(extension.clone());
            own.or_insert_with(|| media_type.clone());
        }
        or_text(&mut self.job_url_prefix, &d.job_url_prefix);
        or_text(&mut self.local_output_dir, &d.local_output_dir);
        or_value(&mut self.compress_file_types, &d.compress_file_types);
    }

    /// # Errors
    /// The first thing that is missing or wrong.
    pub fn validate(&self) -> Result<(), GcsConfigurationError> {
        StoragePath::parse(&self.bucket)?;
        for media_type in self.media_types.values() {
            check_media_type(media_type)
                .map_err(|why| GcsConfigurationError::MediaType(media_type.clone(), why))?;
        }
        let strategy =
            PathStrategy::from_word(&self.path_strategy).ok_or(GcsConfigurationError::Strategy)?;
        if strategy != PathStrategy::Explicit
            && (self.default_org.is_empty() || self.default_repo.is_empty())
        {
            return Err(GcsConfigurationError::NoDefaultRepo(
                self.path_strategy.clone(),
            ));
        }
        Ok(())
    }
}

/// Go's `mime.ParseMediaType` as far as its verdict goes: `token[/token]` and `; key=value` parameters.
fn check_media_type(text: &str) -> Result<(), &'static str> {
    let (base, mut rest) = text.split_once(';').map_or((text, ""), |(b, r)| (b, r));
    let base = base.trim();
    let (kind, sub) = base
        .split_once('/')
        .map_or((base, None), |(k, s)| (k, Some(s)));
    if kind.is_empty() {
        return Err("no media type");
    }
    if !kind.chars().all(is_token_char) {
        return Err("unexpected content after media subtype");
    }
    match sub {
        Some("") => return Err("expected token after slash"),
        Some(sub) if !sub.chars().all(is_token_char) => {
            return Err("unexpected content after media subtype");
        }
        _ => {}
    }
    let mut seen = std::collections::BTreeSet::new();
    while !rest.trim().is_empty() {
        let (key, after) = rest
            .trim_start()
            .split_once('=')
            .ok_or("invalid media parameter")?;
        let key = key.to_lowercase();
        if key.is_empty() || !key.chars().all(is_token_char) {
            return Err("invalid media parameter");
        }
        let after = media_value(after)
            .ok_or("invalid media parameter")?
            .trim_start();
        if !seen.insert(key) {
            return Err("duplicate parameter name");
        }
        rest = match after.strip_prefix(';') {
            Some(next) => next,
            None if after.is_empty() => after,
            None => return Err("invalid media parameter"),
        };
    }
    Ok(())
}

/// What follows a parameter's value, `None` when there is no value.
fn media_value(text: &str) -> Option<&str> {
    let Some(mut quoted) = text.strip_prefix('"') else {
        let end = text.find(|c| !is_token_char(c)).unwrap_or(text.len());
        return (end > 0).then(|| &text[end..]);
    };
    loop {
        let at = quoted.find(['"', '\\'])?;
        if quoted[at..].starts_with('"') {
            return Some(&quoted[at + 1..]);
        }
        let mut escaped = quoted[at + 1..].chars();
        escaped.next()?;
        quoted = escaped.as_str();
    }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    /// POD-015, CFG-067: media types are a union in which the job's own win.
    #[test]
    fn pod_015_cfg_067_own_value_wins() {
        let own: DecorationConfig = from_value(json!({
            "timeout": "1h", "ssh_key_secrets": [], "skip_cloning": false,
            "gcs_configuration": {"bucket": "own", "mediaTypes": {"log": "text/own", "svg": "image/svg+xml"}, "compress_file_types": []},
        }))
        .unwrap();
        let default: DecorationConfig = from_value(json!({
            "timeout": "2h", "grace_period": "5s", "ssh_key_secrets": ["k"], "skip_cloning": true,
            "gcs_configuration": {"bucket": "b", "path_strategy": "explicit", "mediaTypes": {"log": "text/plain", "txt": "text/plain"}, "compress_file_types": ["txt"]},
            "utility_images": {"sidecar": "s"},
        }))
        .unwrap();
        let merged = DecorationConfig::apply_default(Some(&own), Some(&default)).unwrap();
        assert_eq!(
            to_value(&merged).unwrap(),
            json!({
                "timeout": "1h0m0s", "grace_period": "5s", "ssh_key_secrets": ["k"], "skip_cloning": false,
                "utility_images": {"sidecar": "s"},
                "gcs_configuration": {"bucket": "own", "path_strategy": "explicit", "mediaTypes": {"log": "text/own", "svg": "image/svg+xml", "txt": "text/plain"}},
            })
        );
        assert_eq!(
            DecorationConfig::apply_default(None, Some(&default)).as_ref(),
            Some(&default)
        );
        assert_eq!(DecorationConfig::apply_default(None, None), None);
    }

    #[test]
    fn pod_016_refusals() {
        let refuse = |v: serde_json::Value| {
            from_value::<DecorationConfig>(v)
                .unwrap()
                .validate()
                .unwrap_err()
                .to_string()
        };
        let images =
            json!({"clonerefs": "c", "initupload": "i", "entrypoint": "e", "sidecar": "s"});
        let errors = [
            refuse(json!({})),
            refuse(json!({"utility_images": {"clonerefs": "c"}})),
            refuse(json!({"utility_images": images})),
            refuse(json!({"utility_images": images, "gcs_configuration": {"path_strategy": "x"}})),
            refuse(
                json!({"utility_images": images, "gcs_configuration": {"path_strategy": "legacy"}}),
            ),
            refuse(
                json!({"utility_images": images, "gcs_configuration": {"path_strategy": "explicit", "mediaTypes": {"a": "b/"}}}),
            ),
            refuse(
                json!({"utility_images": images, "gcs_configuration": {"path_strategy": "explicit"}, "oauth_token_secret": {}, "ssh_key_secrets": ["s"]}),
            ),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        utility image config is not specified
        the following utility images are not specified: ["initupload" "entrypoint" "sidecar"]
        GCS upload configuration is not specified
        GCS configuration is invalid: gcs_path_strategy must be one of "legacy", "explicit", or "single"
        GCS configuration is invalid: default org and repo must be provided for GCS strategy "legacy"
        GCS configuration is invalid: invalid extension media type "b/": mime: expected token after slash
        both OAuth token and SSH key secrets are specified
        "#);
    }

    #[test]
    fn media_types_with_parameters() {
        for good in [
            "text/plain",
            "text/plain; charset=utf-8",
            "x",
            "a/b; q=\"c;\\\"d\"; r=s",
            "a/b;",
        ] {
            assert_eq!(check_media_type(good), Ok(()), "{good}");
        }
        for bad in ["", "a b/c", "a/b; c", "a/b; c=d; c=e", "a/b; c=\"d"] {
            assert!(check_media_type(bad).is_err(), "{bad}");
        }
    }
}
