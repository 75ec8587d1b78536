//! Where Prow's files lie in a repository, in the places where people put them.

use trireme_config::Layout;

/// Where config.yaml may be; plugins.yaml is looked for beside it, then here.
const CONFIGS: [&str; 7] = [
    "config.yaml",
    "config/config.yaml",
    "config/prow/config.yaml",
    "configs/prow/config/config.yaml",
    "prow/config.yaml",
    "prow/config/config.yaml",
    "core-services/prow/02_config/_config.yaml",
];
const PLUGINS: [&str; 7] = [
    "plugins.yaml",
    "config/plugins.yaml",
    "config/prow/plugins.yaml",
    "configs/prow/config/plugins.yaml",
    "prow/plugins.yaml",
    "prow/config/plugins.yaml",
    "core-services/prow/02_config/_plugins.yaml",
];
/// Where the job tree may be.
const JOBS: [&str; 9] = [
    "jobs",
    "config/jobs",
    "config/prow/jobs",
    "configs/prow/jobs",
    "prow/jobs",
    "prow/prowjobs",
    "prow/config/jobs",
    "prow-jobs",
    "ci-operator/jobs",
];

/// What is there, by paths from the top with slashes.
pub(super) trait Tree {
    fn is_file(&self, path: &str) -> bool;
    fn is_dir(&self, path: &str) -> bool;
}

/// Finds the layout of a tree.
///
/// # Errors
/// When config.yaml is nowhere, or something is in several places: a person has to say which.
pub(super) fn find(tree: &impl Tree) -> Result<Layout, String> {
    let files = |places: &[&'static str]| -> Vec<&'static str> {
        let there = places.iter().copied();
        there.filter(|path| tree.is_file(path)).collect()
    };
    let configs = files(&CONFIGS);
    let config = only("config.yaml", "--config-path", &configs)?.ok_or_else(|| {
        format!(
            "no config.yaml in any of the customary places ({}): name the files with --config-path, --job-config-path and \
             --plugin-config",
            CONFIGS.join(", ")
        )
    })?;
    let dir = config.rsplit_once('/').map_or("", |(dir, _)| dir);
    let beside = |name: &str| match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    };
    let plugins = ["plugins.yaml", "_plugins.yaml"]
        .map(beside)
        .into_iter()
        .find(|path| tree.is_file(path));
    let plugins = match plugins {
        Some(path) => Some(path),
        None => only("plugins.yaml", "--plugin-config", &files(&PLUGINS))?.map(str::to_owned),
    };
    let jobs: Vec<&'static str> = JOBS.into_iter().filter(|path| tree.is_dir(path)).collect();
    let jobs = only("a job tree", "--job-config-path", &jobs)?;
    Ok(Layout {
        config: config.to_owned(),
        plugins,
        jobs: jobs.map(str::to_owned),
        supplemental_dirs: vec![dir.to_owned()],
        plugin_supplemental_dirs: vec![dir.to_owned()],
        ..Layout::default()
    })
}

fn only(what: &str, flag: &str, found: &[&'static str]) -> Result<Option<&'static str>, String> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => Err(format!(
            "{what} is in several places ({}): say which with {flag} and the other flags",
            several.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    struct Files(BTreeSet<&'static str>);

    impl Tree for Files {
        fn is_file(&self, path: &str) -> bool {
            self.0.contains(path)
        }

        fn is_dir(&self, path: &str) -> bool {
            self.0.iter().any(|file| {
                file.strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
            })
        }
    }

    fn found(files: &[&'static str]) -> Result<(String, Option<String>, Option<String>), String> {
        let layout = find(&Files(files.iter().copied().collect()))?;
        Ok((layout.config, layout.plugins, layout.jobs))
    }

    #[test]
    fn files_are_found_where_people_put_them() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found(&[
                "config/prow/config.yaml",
                "config/prow/plugins.yaml",
                "config/jobs/a/b.yaml",
            ]),
            Ok((
                "config/prow/config.yaml".to_owned(),
                some("config/prow/plugins.yaml"),
                some("config/jobs"),
            ))
        );
        assert_eq!(
            found(&[
                "core-services/prow/02_config/_config.yaml",
                "core-services/prow/02_config/_plugins.yaml",
                "ci-operator/jobs/a.yaml",
            ]),
            Ok((
                "core-services/prow/02_config/_config.yaml".to_owned(),
                some("core-services/prow/02_config/_plugins.yaml"),
                some("ci-operator/jobs"),
            ))
        );
        assert_eq!(
            found(&["config.yaml"]),
            Ok(("config.yaml".to_owned(), None, None))
        );
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_told_with_the_flags_that_help() {
        insta::assert_snapshot!(found(&["x.yaml"]).unwrap_err(), @"no config.yaml in any of the customary places (config.yaml, config/config.yaml, config/prow/config.yaml, configs/prow/config/config.yaml, prow/config.yaml, prow/config/config.yaml, core-services/prow/02_config/_config.yaml): name the files with --config-path, --job-config-path and --plugin-config");
        insta::assert_snapshot!(found(&["config.yaml", "prow/config.yaml"]).unwrap_err(), @"config.yaml is in several places (config.yaml, prow/config.yaml): say which with --config-path and the other flags");
        insta::assert_snapshot!(found(&["config.yaml", "jobs/a.yaml", "prow/jobs/b.yaml"]).unwrap_err(), @"a job tree is in several places (jobs, prow/jobs): say which with --job-config-path and the other flags");
    }
}
