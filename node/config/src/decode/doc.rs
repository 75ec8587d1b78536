//! Doc comments of the types of Prow's API, by the names that the tables have for them.

use trireme_prowjob::decoration::{
    CensoringOptions, DecorationConfig, GcsConfiguration, Resources, SchedulingOptions, SecretKey,
    UtilityImages,
};
use trireme_prowjob::reporting::{
    GitHubTeamSlug, JenkinsSpec, ProwJobDefault, ReporterConfig, RerunAuthConfig,
    ResultStoreConfig, SlackReporterConfig, TektonPipelineRunSpec,
};
use trireme_prowjob::{Pull, Refs};

type Attributes = &'static [&'static str];
type Documented = (Attributes, &'static [(&'static str, Attributes)]);

macro_rules! documented {
    ($($name:literal => $ty:ty,)*) => {
        fn documented(name: &str) -> Option<Documented> {
            match name {
                $($name => Some((<$ty>::DOC, <$ty>::FIELD_DOCS)),)*
                _ => None,
            }
        }
    };
}

documented! {
    "Refs" => Refs,
    "Pull" => Pull,
    "DecorationConfig" => DecorationConfig,
    "UtilityImages" => UtilityImages,
    "Resources" => Resources,
    "GCSConfiguration" => GcsConfiguration,
    "SecretKey" => SecretKey,
    "CensoringOptions" => CensoringOptions,
    "SchedulingOptions" => SchedulingOptions,
    "ReporterConfig" => ReporterConfig,
    "SlackReporterConfig" => SlackReporterConfig,
    "RerunAuthConfig" => RerunAuthConfig,
    "GitHubTeamSlug" => GitHubTeamSlug,
    "ProwJobDefault" => ProwJobDefault,
    "ResultStoreConfig" => ResultStoreConfig,
    "JenkinsSpec" => JenkinsSpec,
    "TektonPipelineRunSpec" => TektonPipelineRunSpec,
}

/// Of a type; empty where it has none.
pub(super) fn of(name: &str) -> Attributes {
    documented(name).map_or(&[], |(doc, _)| doc)
}

/// Of a field of a type; empty where it has none.
pub(super) fn field(name: &str, field: &str) -> Attributes {
    documented(name)
        .and_then(|(_, fields)| fields.iter().find(|(key, _)| *key == field))
        .map_or(&[], |(_, doc)| doc)
}
