//! How a job's container is wrapped: utility images, storage, cloning, censoring.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::go_duration::{GoDuration, MetaDuration};

go_struct! {
    /// How to wrap a job's containers with the pod utilities.
    pub struct DecorationConfig {
        /// From start to SIGINT; unset or 0 = 2h.
        "timeout" => timeout: Option<GoDuration>,
        /// From SIGINT to SIGKILL; unset or 0 = 15s.
        "grace_period" => grace_period: Option<GoDuration>,
        "utility_images" => utility_images: Option<UtilityImages>,
        "resources" => resources: Option<Resources>,
        "gcs_configuration" => gcs_configuration: Option<GcsConfiguration>,
        "gcs_credentials_secret" => gcs_credentials_secret: Option<String>,
        "s3_credentials_secret" => s3_credentials_secret: Option<String>,
        "default_service_account_name" => default_service_account_name: Option<String>,
        "ssh_key_secrets" => ssh_key_secrets: Vec<String>,
        "ssh_host_fingerprints" => ssh_host_fingerprints: Vec<String>,
        "blobless_fetch" => blobless_fetch: Option<bool>,
        "sparse_checkout_files" => sparse_checkout_files: Vec<String>,
        "skip_cloning" => skip_cloning: Option<bool>,
        /// `name` or `name/key`.
        "cookiefile_secret" => cookiefile_secret: Option<String>,
        "oauth_token_secret" => oauth_token_secret: Option<SecretKey>,
        "github_api_endpoints" => github_api_endpoints: Vec<String>,
        "github_app_id" => github_app_id: String,
        "github_app_private_key_secret" => github_app_private_key_secret: Option<SecretKey>,
        "censor_secrets" => censor_secrets: Option<bool>,
        "censoring_options" => censoring_options: Option<CensoringOptions>,
        "upload_ignores_interrupts" => upload_ignores_interrupts: Option<bool>,
        "set_limit_equals_memory_request" => set_limit_equals_memory_request: Option<bool>,
        /// A Kubernetes quantity in the form it came.
        "default_memory_request" => default_memory_request: Option<Value>,
        "scheduling_options" => scheduling_options: Option<SchedulingOptions>,
        "pod_pending_timeout" => pod_pending_timeout: Option<MetaDuration>,
        "pod_running_timeout" => pod_running_timeout: Option<MetaDuration>,
        "pod_unscheduled_timeout" => pod_unscheduled_timeout: Option<MetaDuration>,
        "run_as_user" => run_as_user: Option<i64>,
        "run_as_group" => run_as_group: Option<i64>,
        "fs_group" => fs_group: Option<i64>,
    }
}

go_struct! {
    /// Images of the pod utilities.
    pub struct UtilityImages {
        "clonerefs" => clonerefs: String,
        "initupload" => initupload: String,
        "entrypoint" => entrypoint: String,
        "sidecar" => sidecar: String,
    }
}

go_struct! {
    /// Kubernetes' ResourceRequirements of the pod utilities.
    pub struct Resources {
        "clonerefs" => clonerefs: Option<Value>,
        "initupload" => initupload: Option<Value>,
        "place_entrypoint" => place_entrypoint: Option<Value>,
        "sidecar" => sidecar: Option<Value>,
    }
}

go_struct! {
    /// One key of a Kubernetes secret.
    pub struct SecretKey {
        "name" => name: String,
        "key" => key: String,
    }
}

go_struct! {
    /// Where a run's files go.
    pub struct GcsConfiguration {
        /// `gs://b`, `s3://b`, a bare bucket name (GCS), or for local writes `file:///dir` or `/dir`.
        "bucket" => bucket: String,
        "path_prefix" => path_prefix: String,
        /// `legacy`, `single` or `explicit`.
        "path_strategy" => path_strategy: String,
        "default_org" => default_org: String,
        "default_repo" => default_repo: String,
        /// File extension to media type.
        "mediaTypes" => media_types: BTreeMap<String, String>,
        "job_url_prefix" => job_url_prefix: String,
        /// Copy here instead of uploading.
        "local_output_dir" => local_output_dir: String,
        /// Extensions to gzip on upload; `*` = all.
        "compress_file_types" => compress_file_types: Option<Vec<String>>,
    }
}

go_struct! {
    /// How secrets are taken out of logs and artifacts.
    pub struct CensoringOptions {
        "censoring_concurrency" => censoring_concurrency: Option<i64>,
        /// Bytes.
        "censoring_buffer_size" => censoring_buffer_size: Option<i64>,
        "include_directories" => include_directories: Option<Vec<String>>,
        "exclude_directories" => exclude_directories: Option<Vec<String>>,
        /// Bytes; shorter secrets stay visible.
        "minimum_secret_length" => minimum_secret_length: Option<i64>,
    }
}

go_struct! {
    /// Where a pod may be placed, as Kubernetes' Affinity and Tolerations.
    pub struct SchedulingOptions {
        "affinity" => affinity: Option<Value>,
        "tolerations" => tolerations: Option<Vec<Value>>,
    }
}
