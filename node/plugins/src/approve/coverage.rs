//! Which OWNERS paths must approve a change, which still have to, and who could be asked (PLG-APPROVE-009 … 011, 021).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trireme_forge::owners::{Draw, RepoOwners};

pub(crate) type Logins = BTreeSet<String>;
type ByPath = BTreeMap<String, Logins>;

/// The files of a change against the OWNERS files.
#[derive(Debug, Clone)]
pub(crate) struct Coverage {
    no_files: bool,
    /// The OWNERS paths that must approve, without those an ancestor stands in for. Sorted.
    needed: Vec<String>,
    groups: Vec<Group>,
    approvers: ByPath,
    leaf_approvers: ByPath,
}

/// Files of a needed path that the same people may approve: there are far fewer of them than files.
#[derive(Debug, Clone)]
struct Group {
    /// Which of the needed paths.
    path: usize,
    approvers: Logins,
}

impl Coverage {
    pub(crate) fn new(paths: &[String], repo: &RepoOwners) -> Self {
        let mut needed = BTreeSet::new();
        let mut groups: HashMap<&str, BTreeSet<BTreeSet<&str>>> = HashMap::new();
        let mut leaf_approvers: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for path in paths {
            let owners = repo.find_approver_owners_for_file(path);
            let sets = groups.entry(owners).or_default();
            let all = repo.approver_names(path);
            if !sets.contains(&all) {
                sets.insert(all);
            }
            let leaf = leaf_approvers.entry(owners).or_default();
            leaf.extend(repo.leaf_approver_names(path));
            let free =
                in_subfolder(path, owners) && repo.is_auto_approve_unowned_subfolders(owners);
            if !free && !needed.contains(owners) {
                needed.insert(owners.to_owned());
            }
        }
        drop_covered_by_ancestors(&mut needed, repo);
        let needed: Vec<String> = needed.into_iter().collect();
        let owned = |names: &BTreeSet<&str>| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Logins>()
        };
        let mut approvers = ByPath::new();
        let mut of_needed = Vec::new();
        for (path, owners) in needed.iter().enumerate() {
            for names in groups.get(owners.as_str()).into_iter().flatten() {
                let group = Group {
                    path,
                    approvers: owned(names),
                };
                let all = approvers.entry(owners.clone()).or_default();
                all.extend(group.approvers.iter().cloned());
                of_needed.push(group);
            }
        }
        let leaf_approvers = needed
            .iter()
            .filter_map(|owners| {
                Some((owners.clone(), owned(leaf_approvers.get(owners.as_str())?)))
            })
            .collect();
        Self {
            no_files: paths.is_empty(),
            needed,
            groups: of_needed,
            approvers,
            leaf_approvers,
        }
    }

    /// Sorted.
    pub(crate) fn needed(&self) -> &[String] {
        &self.needed
    }

    /// Who may approve a needed path.
    pub(crate) fn approvers_of(&self, path: &str) -> Option<&Logins> {
        self.approvers.get(path)
    }

    /// The needed paths that `approvals` (lower case) leave open.
    pub(crate) fn unapproved(&self, approvals: &Logins) -> BTreeSet<&str> {
        self.groups
            .iter()
            .filter(|group| group.approvers.is_disjoint(approvals))
            .map(|group| self.needed[group.path].as_str())
            .collect()
    }

    /// A change without files is never approved.
    pub(crate) fn approved_by(&self, approvals: &Logins) -> bool {
        !self.no_files && self.unapproved(approvals).is_empty()
    }

    /// Whether the login may approve any needed path.
    pub(crate) fn may_approve_something(&self, login: &str) -> bool {
        self.approvers.values().any(|logins| logins.contains(login))
    }

    /// The nearest approvers of every needed path, one entry per path and person: what suggestions are drawn from.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let mut candidates: Vec<String> = self
            .leaf_approvers
            .values()
            .flat_map(|logins| logins.iter().cloned())
            .collect();
        candidates.sort();
        candidates
    }

    /// Whom to ask, given who approved and who is assigned. `order` is how [`Self::candidates`] are weighed: the
    /// first of equals wins.
    pub(crate) fn suggestions(
        &self,
        approved: &Logins,
        assigned: &Logins,
        order: &[String],
    ) -> Logins {
        let known: Logins = approved.union(assigned).cloned().collect();
        let suggested = self.keep_useful(&self.leaf_approvers, &known, order);
        // Assignees who could close what the suggested leave open; here people of parent directories count too.
        let known: Logins = approved.union(&suggested).cloned().collect();
        let everyone: Vec<String> = known.union(assigned).cloned().collect();
        let assignees = self.keep_useful(&self.approvers, &known, &everyone);
        suggested.union(&assignees).cloned().collect()
    }

    /// A set of people that covers the change, without those who add nothing to `known`. `by_path` says whom each path
    /// counts as theirs.
    fn keep_useful(&self, by_path: &ByPath, known: &Logins, order: &[String]) -> Logins {
        let open = self.unapproved(known);
        let mut chosen = Search::new(self, by_path, order).covering_set();
        chosen.retain(|login| {
            open.iter().any(|path| {
                by_path
                    .get(*path)
                    .is_some_and(|logins| logins.contains(login))
            })
        });
        chosen
    }
}

/// For a set of people who cover a change. Everything is counted along, because hundreds of paths may need hundreds of
/// people.
struct Search<'a> {
    people: Vec<Person<'a>>,
    /// By needed path: whose it is.
    of_path: Vec<Vec<usize>>,
    /// By needed path: groups without one of the chosen.
    open_groups: Vec<usize>,
    open_paths: usize,
    /// By group.
    approved: Vec<bool>,
    path_of_group: Vec<usize>,
}

struct Person<'a> {
    login: &'a str,
    /// Paths that are theirs.
    paths: usize,
    /// Of those, the ones that are open.
    open: usize,
    groups: Vec<usize>,
    chosen: bool,
}

impl<'a> Search<'a> {
    fn new(coverage: &'a Coverage, by_path: &'a ByPath, order: &'a [String]) -> Self {
        let mut index: HashMap<&str, usize> = HashMap::new();
        let mut people: Vec<Person<'a>> = Vec::new();
        for login in order {
            // Of several entries of one person the first counts: what a later one would win, it has won.
            index.entry(login).or_insert_with(|| {
                people.push(Person {
                    login,
                    paths: 0,
                    open: 0,
                    groups: Vec::new(),
                    chosen: false,
                });
                people.len() - 1
            });
        }
        let of_path = coverage.needed.iter().map(|path| {
            let logins = by_path.get(path).into_iter().flatten();
            let known = logins.filter_map(|login| index.get(login.as_str()).copied());
            known.collect::<Vec<usize>>()
        });
        let of_path: Vec<Vec<usize>> = of_path.collect();
        for &person in of_path.iter().flatten() {
            people[person].paths += 1;
            people[person].open += 1;
        }
        let mut open_groups = vec![0; coverage.needed.len()];
        for (number, group) in coverage.groups.iter().enumerate() {
            open_groups[group.path] += 1;
            for login in &group.approvers {
                if let Some(&person) = index.get(login.as_str()) {
                    people[person].groups.push(number);
                }
            }
        }
        Self {
            people,
            of_path,
            open_paths: open_groups.iter().filter(|&&groups| groups > 0).count(),
            open_groups,
            approved: vec![false; coverage.groups.len()],
            path_of_group: coverage.groups.iter().map(|group| group.path).collect(),
        }
    }

    /// Greedily: whoever covers most of what is open, until nothing is or nobody helps.
    fn covering_set(mut self) -> Logins {
        while self.open_paths > 0 {
            let mut best = None;
            let mut most = 0;
            for (number, person) in self.people.iter().enumerate() {
                if person.open > most && !person.chosen {
                    // All paths of that person, not only the open ones: as Prow weighs it.
                    most = person.paths;
                    best = Some(number);
                }
            }
            match best {
                Some(person) => self.choose(person),
                None => break,
            }
        }
        let chosen = self.people.iter().filter(|person| person.chosen);
        chosen.map(|person| person.login.to_owned()).collect()
    }

    fn choose(&mut self, person: usize) {
        self.people[person].chosen = true;
        for group in std::mem::take(&mut self.people[person].groups) {
            if std::mem::replace(&mut self.approved[group], true) {
                continue;
            }
            let path = self.path_of_group[group];
            self.open_groups[path] -= 1;
            if self.open_groups[path] == 0 {
                self.open_paths -= 1;
                for &other in &self.of_path[path] {
                    self.people[other].open -= 1;
                }
            }
        }
    }
}

/// Whether the file lies at least one directory below `owners` (PLG-APPROVE-011, PLG-APPROVE-024).
fn in_subfolder(file: &str, owners: &str) -> bool {
    let below = if owners.is_empty() {
        Some(file)
    } else {
        file.strip_prefix(owners)
            .and_then(|rest| rest.strip_prefix('/'))
    };
    below.is_some_and(|below| below.contains('/'))
}

/// Leaves out a path if one above it is there too, unless it or one between has `no_parent_owners`.
fn drop_covered_by_ancestors(paths: &mut BTreeSet<String>, repo: &RepoOwners) {
    for path in paths.clone() {
        let mut at = path.as_str();
        while !at.is_empty() && !repo.is_no_parent_owners(at) {
            at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
            if paths.contains(at) {
                paths.remove(&path);
                break;
            }
        }
    }
}

/// The candidates in an order that is the same every time for one pull request and differs between them, so that not
/// always the same people are asked (PLG-APPROVE-022).
pub(crate) fn shuffled(mut candidates: Vec<String>, seed: u64) -> Vec<String> {
    let mut draw = Draw::seeded(seed);
    for last in (1..candidates.len()).rev() {
        candidates.swap(last, draw.below(last + 1));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use trireme_forge::owners::OwnersOptions;

    use super::*;

    #[test]
    fn plg_approve_011_only_subfolders_are_freed() {
        assert!(in_subfolder("a/b/c.go", "a"));
        assert!(!in_subfolder("a/c.go", "a"));
        assert!(!in_subfolder("ab/b/c.go", "a"));
        // Upstream frees these two: it looks for the path anywhere in the grandparent's.
        assert!(!in_subfolder("c.go", ""));
        assert!(!in_subfolder("x/a/b/c.go", "a"));
        assert!(in_subfolder("b/c.go", ""));
    }

    /// As Prow says it, counting anew each time.
    fn covering_set_counted_anew(
        coverage: &Coverage,
        by_path: &ByPath,
        order: &[String],
    ) -> Logins {
        let theirs = |login: &String| {
            let paths = by_path.iter().filter(|(_, logins)| logins.contains(login));
            paths
                .map(|(path, _)| path.as_str())
                .collect::<BTreeSet<&str>>()
        };
        let mut chosen = Logins::new();
        while !coverage.approved_by(&chosen) {
            let open = coverage.unapproved(&chosen);
            let (mut best, mut most) = (None, 0);
            for login in order {
                let paths = theirs(login);
                if paths.intersection(&open).count() > most && !chosen.contains(login) {
                    most = paths.len();
                    best = Some(login);
                }
            }
            match best {
                Some(login) => chosen.insert(login.clone()),
                None => break,
            };
        }
        chosen
    }

    /// PLG-APPROVE-021: what is counted along is what counting anew gives, on trees where people own many places, files of
    /// one place have different owners, and some have none.
    #[test]
    fn counting_along_finds_the_same_people() {
        let mut kinds = [0; 3];
        for seed in 0..300 {
            let mut draw = Draw::seeded(seed);
            let mut files = vec![("OWNERS".to_owned(), "approvers: [p0]\n".to_owned())];
            let mut changed = Vec::new();
            for dir in 0..1 + draw.below(8) {
                let dir = if draw.below(3) == 0 {
                    format!("d{}/e{dir}", draw.below(4))
                } else {
                    format!("d{dir}")
                };
                let mut people = || format!("[p{}, p{}]", draw.below(9), draw.below(9));
                let (one, two) = (people(), people());
                let text = match draw.below(4) {
                    0 => format!(
                        "filters: {{'.*': {{approvers: {one}}}, 'a$': {{approvers: {two}}}}}\n"
                    ),
                    1 => format!(
                        "filters: {{'a$': {{approvers: {one}}}, 'b$': {{approvers: {two}}}}}\n"
                    ),
                    2 => format!("approvers: {one}\noptions: {{no_parent_owners: true}}\n"),
                    _ => format!("approvers: {two}\n"),
                };
                files.push((format!("{dir}/OWNERS"), text));
                for file in ["a", "b", "c/d"].iter().take(draw.below(4)) {
                    changed.push(format!("{dir}/{file}"));
                }
            }
            let files = files
                .iter()
                .map(|(path, text)| (path.as_str(), text.as_bytes()));
            let owners = RepoOwners::from_files(files, &OwnersOptions::default());
            let coverage = Coverage::new(&changed, &owners);
            let order = shuffled(coverage.candidates(), seed);
            for by_path in [&coverage.leaf_approvers, &coverage.approvers] {
                let fast = Search::new(&coverage, by_path, &order).covering_set();
                let slow = covering_set_counted_anew(&coverage, by_path, &order);
                assert_eq!(fast, slow, "{seed} {changed:?} {coverage:?}");
                kinds[fast.len().min(2)] += 1;
            }
        }
        // None, one, and several people: all of it happened.
        assert!(kinds.iter().all(|&times| times > 20), "{kinds:?}");
    }

    #[test]
    fn plg_approve_022_the_order_is_stable_for_a_pull_request() {
        let people: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        assert_eq!(shuffled(people.clone(), 7), shuffled(people.clone(), 7));
        assert_ne!(shuffled(people.clone(), 7), shuffled(people.clone(), 8));
        let mut sorted = shuffled(people.clone(), 9);
        sorted.sort();
        assert_eq!(sorted, people);
        assert_eq!(shuffled(vec![], 1), Vec::<String>::new());
        // Pinned: a new version must not repost the notification of every open pull request.
        assert_eq!(shuffled(people, 1).join(""), "cbeda");
    }
}
