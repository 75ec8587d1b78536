//! The link to a run's page (EXE-063). The template used without a prefix is the configuration's affair.

use crate::decoration::GcsConfiguration;
use crate::gcs_paths::{self, BucketError, PathError, StoragePath, percent_decode};
use crate::job_spec::JobSpec;

/// Why a run has no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobUrlError {
    /// The bucket is no path.
    #[error("calculating joburl: {0}")]
    Bucket(#[from] BucketError),
    /// The run has no place in storage.
    #[error("calculating joburl: {0}")]
    Path(#[from] PathError),
    /// The prefix is no URL.
    #[error("job URL prefix {0:?} is not a URL")]
    Prefix(String),
}

/// `<prefix>/<provider>/<bucket>/<run directory>`, the provider left out on request.
///
/// # Errors
/// When bucket, strategy or prefix are wrong or the job lacks what its type needs.
pub fn job_url(
    prefix: &str,
    without_provider: bool,
    config: &GcsConfiguration,
    spec: &JobSpec,
) -> Result<String, JobUrlError> {
    let run = gcs_paths::for_job(config, spec, "")?.run;
    let bucket = StoragePath::parse(&config.bucket)?;
    let bad_prefix = || JobUrlError::Prefix(prefix.to_owned());

    let suffix_at = prefix.find(['?', '#']).unwrap_or(prefix.len());
    let (location, suffix) = prefix.split_at(suffix_at);
    let path_at = match location.find("://") {
        Some(at) => location[at + 3..]
            .find('/')
            .map_or(location.len(), |slash| at + 3 + slash),
        None => 0,
    };
    let (origin, path) = location.split_at(path_at);
    let path = percent_decode(path).ok_or_else(bad_prefix)?;
    let provider = if without_provider {
        ""
    } else {
        &bucket.provider
    };
    let path = gcs_paths::join(&[&path, provider, &bucket.full_path(), &run]);
    let slash = if !origin.is_empty() && !path.starts_with('/') {
        "/"
    } else {
        ""
    };
    Ok(format!("{origin}{slash}{}{suffix}", escape_path(&path)))
}

/// Go's escaping of a URL path.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::ProwJobType;

    /// JOB-065
    #[test]
    fn exe_063_prefix_provider_bucket_directory() {
        let config = GcsConfiguration {
            bucket: "s3://b/in side".into(),
            path_strategy: "explicit".into(),
            ..GcsConfiguration::default()
        };
        let spec = JobSpec {
            r#type: ProwJobType::Periodic,
            job: "j".into(),
            build_id: "1".into(),
            ..JobSpec::default()
        };
        let url = |prefix: &str, without| job_url(prefix, without, &config, &spec).unwrap();
        assert_eq!(
            url("https://prow.example.com/view/", false),
            "https://prow.example.com/view/s3/b/in%20side/logs/j/1"
        );
        assert_eq!(
            url("https://prow.example.com", true),
            "https://prow.example.com/b/in%20side/logs/j/1"
        );
        assert_eq!(
            url("http://h/v?x=y", false),
            "http://h/v/s3/b/in%20side/logs/j/1?x=y"
        );
    }
}
