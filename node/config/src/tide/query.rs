//! Queries: which pull requests Tide considers, and the searches that find them.

use std::collections::{BTreeMap, BTreeSet};

object! {
    /// Conditions of a pull request that may merge, for some repositories.
    pub struct TideQuery {
        [omit "author"] author: String,
        /// All of them; a comma separates alternatives.
        [omit "labels"] labels: Vec<String>,
        [omit "missingLabels"] missing_labels: Vec<String>,
        [omit "excludedBranches"] excluded_branches: Vec<String>,
        [omit "includedBranches"] included_branches: Vec<String>,
        [omit "milestone"] milestone: String,
        [omit "reviewApprovedRequired"] review_approved_required: bool,
        [omit "orgs"] orgs: Vec<String>,
        [omit "repos"] repos: Vec<String>,
        [omit "excludedRepos"] excluded_repos: Vec<String>,
    }
}

/// Orgs with the repositories in them that do not count, and single repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrgExceptions {
    pub orgs: BTreeMap<String, BTreeSet<String>>,
    pub repos: BTreeSet<String>,
}

impl TideQuery {
    /// Whether the query is about a repository.
    #[must_use]
    pub fn covers(&self, org: &str, repo: &str) -> bool {
        let full = format!("{org}/{repo}");
        if self.orgs.iter().any(|o| o == org) {
            return !self.excluded_repos.contains(&full);
        }
        self.repos.contains(&full)
    }

    /// Whether the query is about a base branch.
    #[must_use]
    pub fn covers_branch(&self, branch: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|b| b == branch);
        !named(&self.excluded_branches)
            && (self.included_branches.is_empty() || named(&self.included_branches))
    }

    /// The conditions in GitHub's search syntax, without repositories.
    #[must_use]
    pub fn conditions(&self) -> String {
        let mut terms: Vec<String> = ["is:pr", "state:open", "archived:false"]
            .map(str::to_owned)
            .into();
        if !self.author.is_empty() {
            terms.push(format!("author:\"{}\"", self.author));
        }
        terms.extend(
            self.excluded_branches
                .iter()
                .map(|b| format!("-base:\"{b}\"")),
        );
        terms.extend(
            self.included_branches
                .iter()
                .map(|b| format!("base:\"{b}\"")),
        );
        for label in &self.labels {
            let alternatives: Vec<_> = label.split(',').map(|l| format!("\"{l}\"")).collect();
            terms.push(format!("label:{}", alternatives.join(",")));
        }
        terms.extend(
            self.missing_labels
                .iter()
                .map(|l| format!("-label:\"{l}\"")),
        );
        if !self.milestone.is_empty() {
            terms.push(format!("milestone:\"{}\"", self.milestone));
        }
        if self.review_approved_required {
            terms.push("review:approved".to_owned());
        }
        terms.join(" ")
    }

    fn repository_terms(&self) -> BTreeMap<&str, Vec<String>> {
        let mut terms: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for org in &self.orgs {
            terms
                .entry(org)
                .or_insert_with(|| vec![format!("org:\"{org}\"")]);
        }
        for (repos, sign) in [(&self.repos, ""), (&self.excluded_repos, "-")] {
            for repo in repos {
                if let Some((org, name)) = repo.split_once('/')
                    && !name.contains('/')
                {
                    terms
                        .entry(org)
                        .or_default()
                        .push(format!("{sign}repo:\"{repo}\""));
                }
            }
        }
        terms
    }

    /// One search per org, because an app sees one org at a time.
    #[must_use]
    pub fn org_searches(&self) -> BTreeMap<String, String> {
        let conditions = self.conditions();
        let search = |(org, terms): (&str, Vec<String>)| {
            (org.to_owned(), format!("{conditions} {}", terms.join(" ")))
        };
        self.repository_terms().into_iter().map(search).collect()
    }

    /// One search for all, its repositories by org.
    #[must_use]
    pub fn search(&self) -> String {
        let mut terms = vec![self.conditions()];
        terms.extend(self.repository_terms().into_values().flatten());
        terms.join(" ")
    }

    /// CFG-052. The text is upstream's, without its prefix.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (n, org) in self.orgs.iter().enumerate() {
            if org.contains('/') {
                return Err(format!(
                    "orgs[{n}]: {org:?} contains a '/' which is not valid"
                ));
            }
            if org.is_empty() {
                return Err(format!("orgs[{n}]: is an empty string"));
            }
        }
        let orgs: BTreeSet<&str> = self.orgs.iter().map(String::as_str).collect();
        no_doubles("orgs", &self.orgs)?;
        for (n, repo) in self.repos.iter().enumerate() {
            let org = org_of(repo)
                .ok_or_else(|| format!("repos[{n}]: {repo:?} is not of the form \"org/repo\""))?;
            if orgs.contains(org) {
                return Err(format!(
                    "repos[{n}]: {repo:?} is already included via org: {org:?}"
                ));
            }
        }
        no_doubles("repos", &self.repos)?;
        if self.orgs.is_empty() && self.repos.is_empty() {
            return Err("'orgs' and 'repos' cannot both be empty".to_owned());
        }
        for (n, repo) in self.excluded_repos.iter().enumerate() {
            let org = org_of(repo).ok_or_else(|| {
                format!("excludedRepos[{n}]: {repo:?} is not of the form \"org/repo\"")
            })?;
            if !orgs.contains(org) {
                return Err(format!(
                    "excludedRepos[{n}]: {repo:?} has no effect because org {org:?} is not included"
                ));
            }
        }
        no_doubles("excludedRepos", &self.excluded_repos)?;
        let missing: BTreeSet<_> = self.missing_labels.iter().collect();
        let both: BTreeSet<_> = self.labels.iter().filter(|l| missing.contains(l)).collect();
        if !both.is_empty() {
            let both: Vec<_> = both.into_iter().map(|label| format!("{label:?}")).collect();
            return Err(format!(
                "the labels: [{}] are both required and forbidden",
                both.join(" ")
            ));
        }
        no_doubles("labels", &self.labels)?;
        no_doubles("missingLabels", &self.missing_labels)?;
        if !self.excluded_branches.is_empty() && !self.included_branches.is_empty() {
            return Err("both 'includedBranches' and 'excludedBranches' are specified ('excludedBranches' have no \
                        effect)"
                .to_owned());
        }
        no_doubles("includedBranches", &self.included_branches)?;
        no_doubles("excludedBranches", &self.excluded_branches)
    }

    /// What two queries share that are folded into one (CFG-053).
    fn fold_key(&self, tenants: Vec<String>) -> impl Ord + use<> {
        (
            self.author.clone(),
            self.excluded_branches.clone(),
            self.included_branches.clone(),
            self.labels.clone(),
            self.missing_labels.clone(),
            self.milestone.clone(),
            self.review_approved_required,
            tenants,
        )
    }
}

fn org_of(repo: &str) -> Option<&str> {
    let (org, name) = repo.split_once('/')?;
    (!org.is_empty() && !name.is_empty() && !name.contains('/')).then_some(org)
}

fn no_doubles(field: &str, list: &[String]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let doubled: BTreeSet<&str> = list
        .iter()
        .filter(|e| !seen.insert(*e))
        .map(String::as_str)
        .collect();
    if doubled.is_empty() {
        return Ok(());
    }
    let count = list.len() - seen.len();
    let names: Vec<_> = doubled.into_iter().collect();
    Err(format!(
        "{field:?} contains {count} duplicate entries: {}",
        names.join(", ")
    ))
}

/// CFG-053: queries with the same conditions and tenants become one; the result is sorted by its JSON.
pub(crate) fn fold(
    queries: Vec<TideQuery>,
    tenants: impl Fn(&TideQuery) -> Vec<String>,
) -> Vec<TideQuery> {
    let mut folded: BTreeMap<_, TideQuery> = BTreeMap::new();
    for mut query in queries {
        for list in [
            &mut query.excluded_branches,
            &mut query.included_branches,
            &mut query.labels,
            &mut query.missing_labels,
        ] {
            list.sort();
        }
        match folded.entry(query.fold_key(tenants(&query))) {
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(query);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.orgs.extend(query.orgs);
                known.repos.extend(query.repos);
                known.excluded_repos.extend(query.excluded_repos);
            }
        }
    }
    let mut queries: Vec<_> = folded.into_values().collect();
    queries
        .sort_by_cached_key(|query| trireme_prowjob::go_json::to_string(query).unwrap_or_default());
    queries
}

impl OrgExceptions {
    /// What a list of queries covers: a repository is excepted if every query on its org excludes it and none names it.
    #[must_use]
    pub fn of(queries: &[TideQuery]) -> Self {
        let mut found = Self::default();
        for query in queries {
            for org in &query.orgs {
                let prefix = format!("{org}/");
                let excluded: BTreeSet<String> = query
                    .excluded_repos
                    .iter()
                    .filter(|repo| repo.starts_with(&prefix))
                    .cloned()
                    .collect();
                found
                    .orgs
                    .entry(org.clone())
                    .and_modify(|known| known.retain(|repo| excluded.contains(repo)))
                    .or_insert(excluded);
            }
            found.repos.extend(query.repos.iter().cloned());
        }
        for excluded in found.orgs.values_mut() {
            excluded.retain(|repo| !found.repos.contains(repo));
        }
        found
    }
}
