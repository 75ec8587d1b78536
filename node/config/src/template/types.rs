//! The types that templates see: Go's field names, where their values stand in JSON, and what kind they are.
//!
//! The notation: `Type: GoName=json kind, …`. A kind is `string`, `int`, `bool`, `raw`, `[]kind`, `{}kind`, a type, or
//! `*type` for one that may be unset. `GoName^=json type` is embedded: its fields are fields of the outer type too.

use std::collections::BTreeMap;
use std::sync::LazyLock;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    String,
    Int,
    Bool,
    /// Carried JSON: maps and lists of anything.
    Raw,
    List(Box<Self>),
    Map(Box<Self>),
    Object {
        name: &'static str,
        pointer: bool,
    },
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) go: &'static str,
    pub(super) json: &'static str,
    pub(super) kind: Kind,
    pub(super) embedded: bool,
}

const TEXT: &str = "
ProwJob: Kind=kind string, APIVersion=apiVersion string, ObjectMeta^=metadata ObjectMeta, Spec=spec ProwJobSpec,
    Status=status ProwJobStatus
ObjectMeta: Name=name string, GenerateName=generateName string, Namespace=namespace string, UID=uid string,
    ResourceVersion=resourceVersion string, Generation=generation int, CreationTimestamp=creationTimestamp raw,
    Labels=labels {}string, Annotations=annotations {}string, Finalizers=finalizers []string
ProwJobSpec: Type=type string, Agent=agent string, Cluster=cluster string, Namespace=namespace string,
    Job=job string, Refs=refs *Refs, ExtraRefs=extra_refs []Refs, Report=report bool, Context=context string,
    RerunCommand=rerun_command string, MaxConcurrency=max_concurrency int, ErrorOnEviction=error_on_eviction bool,
    PodSpec=pod_spec raw, JenkinsSpec=jenkins_spec *JenkinsSpec, PipelineRunSpec=pipeline_run_spec raw,
    TektonPipelineRunSpec=tekton_pipeline_run_spec raw, DecorationConfig=decoration_config *DecorationConfig,
    ReporterConfig=reporter_config *ReporterConfig, RerunAuthConfig=rerun_auth_config *RerunAuthConfig,
    Hidden=hidden bool, ProwJobDefault=prowjob_defaults *ProwJobDefault, JobQueueName=job_queue_name string
ProwJobStatus: StartTime=startTime raw, PendingTime=pendingTime raw, CompletionTime=completionTime raw,
    State=state string, Description=description string, URL=url string, PodRevivalCount=pod_revival_count int,
    PodName=pod_name string, BuildID=build_id string, JenkinsBuildID=jenkins_build_id string,
    PrevReportStates=prev_report_states {}string
Refs: Org=org string, Repo=repo string, RepoLink=repo_link string, BaseRef=base_ref string, BaseSHA=base_sha string,
    BaseLink=base_link string, Pulls=pulls []Pull, PathAlias=path_alias string, WorkDir=workdir bool,
    Auxiliary=auxiliary bool, CloneURI=clone_uri string, SkipSubmodules=skip_submodules bool,
    CloneDepth=clone_depth int, SkipFetchHead=skip_fetch_head bool, BloblessFetch=blobless_fetch raw,
    SparseCheckoutFiles=sparse_checkout_files []string
Pull: Number=number int, Author=author string, SHA=sha string, Title=title string, Ref=ref string,
    HeadRef=head_ref string, Link=link string, CommitLink=commit_link string, AuthorLink=author_link string
JenkinsSpec: GitHubBranchSourceJob=github_branch_source_job bool
DecorationConfig: Timeout=timeout raw, GracePeriod=grace_period raw, UtilityImages=utility_images *UtilityImages,
    Resources=resources raw, GCSConfiguration=gcs_configuration *GCSConfiguration,
    GCSCredentialsSecret=gcs_credentials_secret raw, S3CredentialsSecret=s3_credentials_secret raw,
    DefaultServiceAccountName=default_service_account_name raw, SSHKeySecrets=ssh_key_secrets []string,
    SSHHostFingerprints=ssh_host_fingerprints []string, BloblessFetch=blobless_fetch raw, SkipCloning=skip_cloning raw,
    CookiefileSecret=cookiefile_secret raw, GitHubAppID=github_app_id string, CensorSecrets=censor_secrets raw
UtilityImages: CloneRefs=clonerefs string, InitUpload=initupload string, Entrypoint=entrypoint string,
    Sidecar=sidecar string
GCSConfiguration: Bucket=bucket string, PathPrefix=path_prefix string, PathStrategy=path_strategy string,
    DefaultOrg=default_org string, DefaultRepo=default_repo string, MediaTypes=mediaTypes {}string,
    JobURLPrefix=job_url_prefix string, LocalOutputDir=local_output_dir string
ReporterConfig: Slack=slack *SlackReporterConfig
SlackReporterConfig: Host=host string, Channel=channel string, JobStatesToReport=job_states_to_report []string,
    ReportTemplate=report_template string, Report=report raw
RerunAuthConfig: AllowAnyone=allow_anyone bool, GitHubUsers=github_users []string, GitHubOrgs=github_orgs []string
ProwJobDefault: TenantID=tenant_id string
CodeReviewCommon: NameWithOwner=NameWithOwner string, Number=Number int, Org=Org string, Repo=Repo string,
    BaseRefPrefix=BaseRefPrefix string, BaseRefName=BaseRefName string, HeadRefName=HeadRefName string,
    HeadRefOID=HeadRefOID string, Title=Title string, Body=Body string, AuthorLogin=AuthorLogin string,
    Mergeable=Mergeable string
PRInfo: Org=Org string, Repo=Repo string, AuthorLogin=AuthorLogin string, AuthorName=AuthorName string
";

static TYPES: LazyLock<BTreeMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut types: BTreeMap<&'static str, Vec<Field>> = BTreeMap::new();
    let mut current = "";
    let mut words = TEXT.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(name) = word.strip_suffix(':') {
            current = name;
        } else if let Some((go, json)) = word.split_once('=') {
            let kind = kind(words.next().unwrap_or_default().trim_end_matches(','));
            let (go, embedded) = go.strip_suffix('^').map_or((go, false), |go| (go, true));
            types.entry(current).or_default().push(Field {
                go,
                json,
                kind,
                embedded,
            });
        }
    }
    types
});

fn kind(text: &'static str) -> Kind {
    match text {
        "string" => Kind::String,
        "int" => Kind::Int,
        "bool" => Kind::Bool,
        "raw" => Kind::Raw,
        _ => {
            if let Some(of) = text.strip_prefix("[]") {
                Kind::List(Box::new(kind(of)))
            } else if let Some(of) = text.strip_prefix("{}") {
                Kind::Map(Box::new(kind(of)))
            } else {
                let name = text.trim_start_matches('*');
                Kind::Object {
                    name,
                    pointer: name.len() != text.len(),
                }
            }
        }
    }
}

pub(super) fn fields(name: &str) -> &'static [Field] {
    TYPES.get(name).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_field_names_is_there() {
        fn name(kind: &Kind) -> Option<&'static str> {
            match kind {
                Kind::Object { name, .. } => Some(name),
                Kind::List(of) | Kind::Map(of) => name(of),
                _ => None,
            }
        }
        for field in TYPES.values().flatten() {
            if let Some(name) = name(&field.kind) {
                assert!(!fields(name).is_empty(), "{name}");
            }
        }
    }
}
