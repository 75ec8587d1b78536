//! The warnings by name: which there are, and which are asked for (CFG-111, CFG-112, CFG-115).

use std::collections::BTreeSet;

use crate::suggest;

/// When a warning is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Unless others are named.
    Default,
    /// With the expensive checks, or by its name.
    Expensive,
    /// Like the expensive ones; upstream keeps them apart.
    Optional,
}

/// Declares the warnings: variant, name, set, whether it needs the plugins' configuration, what it complains about.
macro_rules! warnings {
    ($($variant:ident $name:literal $set:ident $plugins:literal $about:literal;)*) => {
        /// Something that checkconfig complains about although a configuration with it can be used.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Warning {
            $(#[doc = $about] $variant,)*
        }

        impl Warning {
            /// Prow's own first, in its order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that `--warnings` and `--exclude-warning` take.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            #[must_use]
            pub const fn set(self) -> Set {
                match self { $(Self::$variant => Set::$set,)* }
            }

            /// Whether it is skipped without a configuration of the plugins.
            #[must_use]
            pub const fn needs_plugins(self) -> bool {
                match self { $(Self::$variant => $plugins,)* }
            }

            /// What it complains about, for people.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

warnings! {
    MismatchedTide "mismatched-tide" Default true
        "a Tide query requires or forbids a label whose plugin is off, or ignores the label of a plugin that is on";
    TideStrictBranch "tide-strict-branch" Default false
        "branch protection wants branches up to date where Tide merges";
    TideContextPolicy "tide-context-policy" Default false
        "a context is required and optional at once on a branch that is named";
    MismatchedTideLenient "mismatched-tide-lenient" Default true
        "mismatched-tide for required labels only; where that one is off";
    NonDecoratedJobs "non-decorated-jobs" Default false
        "a kubernetes job does without the pod utilities";
    LongJobNames "long-job-names" Default false
        "the name of a kubernetes job is longer than a label's value may be";
    DuplicateJobRefs "duplicate-job-refs" Default false
        "a presubmit clones a repository twice";
    NeedsOkToTest "needs-ok-to-test" Default false
        "a Tide query requires lgtm and forbids needs-ok-to-test";
    ManagedWebhooks "managed-webhooks" Default false
        "an org and one of its repositories both have a managed webhook";
    ValidateOwners "validate-owners" Default true
        "a plugin reads OWNERS files where verify-owners is off";
    MissingTrigger "missing-trigger" Default true
        "a repository has jobs and the trigger plugin is off";
    ValidateUrls "validate-urls" Default true
        "status_error_link is no URL";
    UnknownFields "unknown-fields" Default false
        "a field of the main file, the plugins' file or a supplemental file that nobody reads";
    ValidateClusterField "validate-cluster-field" Default false
        "a job names a build cluster that there is not, or that its agent does not know";
    ValidateSupplementalProwConfigHierarchy "validate-supplemental-prow-config-hierarchy" Default false
        "a supplemental file does not stand where its org or repository says";
    ValidateUnmanagedBranchconfigHasNoSubconfig "validate-unmanaged-branchconfig-has-no-subconfig" Default false
        "branch protection is set where it is not managed";
    ValidateLabel "validate-label" Default true
        "a restricted label is empty, or also an additional one";
    RequiredJobAnnotations "required-job-annotations" Default false
        "a job lacks an annotation of --required-job-annotations";
    PeriodicDefaultCloneConfig "periodic-default-clone-config" Default false
        "a periodic says how to clone, and has no repository of its own";
    ValidateConfigUpdaterAcls "validate-config-updater-acls" Default true
        "an entry of config_updater's allowed_repos or denied_repos names no org or repository";
    VerifyOwnersPresence "verify-owners-presence" Expensive true
        "a plugin reads OWNERS files in a repository that has none at its root (asks GitHub)";
    ValidDecorationConfig "valid-decoration-config" Optional false
        "the decoration of a kubernetes job is incomplete";
    UnknownFieldsAll "unknown-fields-all" Optional false
        "unknown-fields, in job files and in-repo files too";
    ValidateGitHubAppInstallation "validate-github-app-installation" Optional false
        "the GitHub app is not installed in an org of the configuration (asks GitHub)";
    DuplicateKey "duplicate-key" Default false
        "a key is written twice in one mapping; not among Prow's";
    ExtraDocument "extra-document" Default false
        "a file has a second YAML document, which nobody reads; not among Prow's";
    DuplicateBasename "duplicate-basename" Default false
        "two job files have the same name, which Prow itself refuses; not among Prow's";
    ExtraRefsCloneUri "extra-refs-clone-uri" Default false
        "the clone_uri of an extra ref is no URI; not among Prow's";
    PodlessJobs "podless-jobs" Default false
        "a job without a pod has a setting that is refused in a job with one; not among Prow's";
    UnknownAgent "unknown-agent" Default false
        "a job names an agent that nobody is; not among Prow's";
    UnknownState "unknown-state" Default false
        "job_states_to_report names a state that no job has; not among Prow's";
    OverlappingBranches "overlapping-branches" Default false
        "two jobs of one name or context run on the same branch; not among Prow's";
    NotBuilt "not-built" Default true
        "a plugin is enabled that is not built into this version, so that nothing happens; not among Prow's";
    PluginAdvice "plugin-advice" Default true
        "a plugin's setting is deprecated, or has no effect as it is written; not among Prow's";
}

impl Warning {
    /// Whether Prow accepts in silence what it complains about. Two job files of one name Prow refuses.
    #[must_use]
    pub const fn is_beyond_prow(self) -> bool {
        matches!(
            self,
            Self::DuplicateKey
                | Self::ExtraDocument
                | Self::ExtraRefsCloneUri
                | Self::PodlessJobs
                | Self::UnknownAgent
                | Self::UnknownState
                | Self::OverlappingBranches
                | Self::NotBuilt
                | Self::PluginAdvice
        )
    }

    /// By its name. An old misspelling of Prow's is taken too.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "validate-supplemental-prow-config-hirarchy" {
            return Some(Self::ValidateSupplementalProwConfigHierarchy);
        }
        Self::ALL
            .iter()
            .copied()
            .find(|warning| warning.name() == name)
    }
}

/// A name that no warning has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such warning {name:?}, valid warnings: {}{}", names(), .suggestion.map_or_else(String::new, |word| format!("; did you mean {word:?}?")))]
pub struct UnknownWarning {
    pub name: String,
    pub suggestion: Option<&'static str>,
}

fn names() -> String {
    let names: Vec<_> = Warning::ALL.iter().map(|warning| warning.name()).collect();
    format!("[{}]", names.join(" "))
}

/// The warnings that are looked for, and those of them that were asked for by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enabled(BTreeSet<Warning>, BTreeSet<Warning>);

impl Enabled {
    /// CFG-112: those that are named; without a name, or with `defaults`, the default ones too, and with `expensive`
    /// then all. `app` adds the check of the app's installations. `excluded` are taken out, whatever they are called.
    ///
    /// # Errors
    /// A name that no warning has.
    pub fn new(
        named: &[String],
        excluded: &[String],
        defaults: bool,
        expensive: bool,
        app: bool,
    ) -> Result<Self, UnknownWarning> {
        let mut enabled = BTreeSet::new();
        for name in named {
            let known = Warning::from_name(name).ok_or_else(|| UnknownWarning {
                name: name.clone(),
                suggestion: suggest::closest(
                    name,
                    Warning::ALL.iter().map(|warning| warning.name()),
                ),
            })?;
            enabled.insert(known);
        }
        let by_name = enabled.clone();
        if named.is_empty() || defaults {
            let wanted = |warning: &&Warning| expensive || warning.set() == Set::Default;
            enabled.extend(Warning::ALL.iter().filter(wanted));
        }
        if app {
            enabled.insert(Warning::ValidateGitHubAppInstallation);
        }
        for name in excluded {
            if let Some(warning) = Warning::from_name(name) {
                enabled.remove(&warning);
            }
        }
        Ok(Self(enabled, by_name))
    }

    /// Whether `--strict` minds it: what Prow does not warn of only where it was asked for, so that a script that passes
    /// there passes here.
    #[must_use]
    pub fn counts(&self, warning: Warning) -> bool {
        !warning.is_beyond_prow() || self.is_named(warning)
    }

    /// Whether it was asked for by its name.
    #[must_use]
    pub fn is_named(&self, warning: Warning) -> bool {
        self.1.contains(&warning)
    }

    #[must_use]
    pub fn has(&self, warning: Warning) -> bool {
        self.0.contains(&warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(
        named: &[&str],
        excluded: &[&str],
        [defaults, expensive, app]: [bool; 3],
    ) -> Enabled {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        Enabled::new(&owned(named), &owned(excluded), defaults, expensive, app).unwrap()
    }

    #[test]
    fn cfg_112_which_warnings_are_looked_for() {
        use Warning::{
            LongJobNames, NonDecoratedJobs, UnknownFields, UnknownFieldsAll, ValidDecorationConfig,
            ValidateGitHubAppInstallation, VerifyOwnersPresence,
        };
        let none = [false; 3];
        let usual = enabled(&[], &[], none);
        assert!(usual.has(UnknownFields) && usual.has(LongJobNames));
        for other in [
            UnknownFieldsAll,
            ValidDecorationConfig,
            VerifyOwnersPresence,
            ValidateGitHubAppInstallation,
        ] {
            assert!(!usual.has(other), "{}", other.name());
        }
        assert_eq!(
            enabled(&[], &[], [false, true, false]).0.len(),
            Warning::ALL.len()
        );
        // --expensive-checks without --include-default-warnings adds nothing to what is named.
        let named = enabled(&["long-job-names"], &[], [false, true, false]);
        assert!(
            named.has(LongJobNames)
                && !named.has(NonDecoratedJobs)
                && !named.has(VerifyOwnersPresence)
        );
        let both = enabled(
            &["unknown-fields-all"],
            &["long-job-names", "no-such"],
            [true, false, false],
        );
        assert!(
            both.has(UnknownFieldsAll) && both.has(NonDecoratedJobs) && !both.has(LongJobNames)
        );
        assert!(
            enabled(&["long-job-names"], &[], [false, false, true])
                .has(ValidateGitHubAppInstallation)
        );
        let old = enabled(&["validate-supplemental-prow-config-hirarchy"], &[], none);
        assert!(old.has(Warning::ValidateSupplementalProwConfigHierarchy));
    }

    /// CFG-025, JOB-033: `--strict` is no stricter than Prow's.
    #[test]
    fn cfg_110_what_prow_accepts_in_silence_counts_when_it_is_asked_for() {
        let usual = enabled(&[], &[], [false; 3]);
        assert!(usual.has(Warning::DuplicateKey) && !usual.counts(Warning::DuplicateKey));
        assert!(usual.counts(Warning::LongJobNames) && usual.counts(Warning::DuplicateBasename));
        let asked = enabled(&["duplicate-key"], &[], [false; 3]);
        assert!(asked.counts(Warning::DuplicateKey));
        assert!(asked.is_named(Warning::DuplicateKey) && !usual.is_named(Warning::DuplicateKey));
        for warning in Warning::ALL {
            let said = warning.about().ends_with("not among Prow's");
            let known = warning.is_beyond_prow() || *warning == Warning::DuplicateBasename;
            assert_eq!(said, known, "{}", warning.name());
        }
    }

    #[test]
    fn cfg_111_an_unknown_warning_is_refused_with_those_that_there_are() {
        let wrong =
            Enabled::new(&["long-job-name".to_owned()], &[], false, false, false).unwrap_err();
        let told = wrong.to_string();
        assert!(told.starts_with("no such warning \"long-job-name\", valid warnings: [mismatched-tide tide-strict-branch "), "{told}");
        assert!(
            told.ends_with("; did you mean \"long-job-names\"?"),
            "{told}"
        );
    }

    /// CFG-115: the sets of the table.
    #[test]
    fn cfg_115_every_name_of_prow_stands_in_its_set() {
        let names = |set: Set, plugins: bool| -> Vec<&str> {
            let wanted = |w: &&Warning| {
                w.set() == set && w.needs_plugins() == plugins && !w.about().contains("not among")
            };
            Warning::ALL
                .iter()
                .filter(wanted)
                .map(|w| w.name())
                .collect()
        };
        assert_eq!(
            names(Set::Default, true),
            [
                "mismatched-tide",
                "mismatched-tide-lenient",
                "validate-owners",
                "missing-trigger",
                "validate-urls",
                "validate-label",
                "validate-config-updater-acls"
            ]
        );
        assert_eq!(names(Set::Expensive, true), ["verify-owners-presence"]);
        assert_eq!(
            names(Set::Optional, false),
            [
                "valid-decoration-config",
                "unknown-fields-all",
                "validate-github-app-installation"
            ]
        );
        assert_eq!(names(Set::Default, false).len(), 13);
    }
}
