//! Feature levels: which commands a cluster may hold.
//!
//! 1. what the first version knew
//! 2. audits, tokens, whose agents are; bytes of records are bounded
//! 3. one open merge intent per branch
//! 4. configurations as pages
//! 5. files of a configuration that are more than one thing, or supplemental under names of their own; jobs
//!    keep the history of their states
//! 6. effects of more kinds, with outcomes and conditions; plans and effects for one head, edits of one text; headers of
//!    deliveries; jobs that are finished from the start; reports that are owed again

use trireme_proto::state::{
    Command, CommitPlans, ConfigFile, Effect, EffectOutcome, EffectState, NewJob, PlanBody,
    SettleEffect, command::Body, effect::Action,
};

use crate::{FIRST_CONFIG_ROLES, is_config_role, jobs::is_terminal};

/// The highest level that this build understands.
pub const FEATURE_LEVEL: u32 = 6;

/// The level of a cluster that has never raised it.
pub const BASE_LEVEL: u32 = 1;

/// From this level on a configuration is named by its pages, and may be as large as they reach.
pub const PAGES_LEVEL: u32 = 4;

/// From this level on a file of a configuration may have any role of [`crate::is_config_role`].
pub const ROLES_LEVEL: u32 = 5;

/// From this level on jobs keep their history. Who applies an entry sees the level that the entries before it raised, so that
/// all replicas begin at the same one; a build that would not write it stops at the entry that raises the level.
pub const HISTORY_LEVEL: u32 = 5;

/// From this level on plans may hold every effect and what goes with it, deliveries keep their headers, a job may be
/// finished from the start, and what was reported may be owed again.
pub const EFFECTS_LEVEL: u32 = 6;

/// The lowest level of a cluster that may hold this command: what it says, and what its kind needs.
pub fn min_level_of(command: &Command) -> u32 {
    let kind = match &command.body {
        Some(
            Body::BeginAudit(_) | Body::ReportDigest(_) | Body::PutToken(_) | Body::RevokeToken(_),
        ) => 2,
        // A build of level 1 would forget the principal, and its state would differ from then on.
        Some(Body::RegisterAgent(register))
            if register
                .agent
                .as_ref()
                .is_some_and(|agent| !agent.principal.is_empty()) =>
        {
            2
        }
        Some(Body::PutConfigPage(put)) => {
            let files = put.page.iter().flat_map(|page| &page.files);
            PAGES_LEVEL.max(level_of_roles(files))
        }
        // What earlier builds would not see in it.
        Some(Body::PutConfig(put))
            if put
                .config
                .as_ref()
                .is_some_and(|config| !config.pages.is_empty() || !config.source.is_empty()) =>
        {
            let files = put.config.iter().flat_map(|config| &config.files);
            PAGES_LEVEL.max(level_of_roles(files))
        }
        Some(Body::PutConfig(put)) => {
            level_of_roles(put.config.iter().flat_map(|config| &config.files))
        }
        Some(Body::SweepBlobs(sweep)) if !sweep.config_pages.is_empty() => PAGES_LEVEL,
        Some(Body::AcceptDelivery(accept))
            if accept
                .delivery
                .as_ref()
                .is_some_and(|delivery| !delivery.headers.is_empty()) =>
        {
            EFFECTS_LEVEL
        }
        Some(Body::CommitPlans(commit)) => level_of_plans(commit),
        Some(Body::CreateJobs(create)) if create.jobs.iter().any(is_finished) => EFFECTS_LEVEL,
        Some(Body::SettleEffect(settle)) => level_of_settling(settle),
        Some(Body::Redrive(redrive)) if redrive.again => EFFECTS_LEVEL,
        _ => BASE_LEVEL,
    };
    command.min_level.max(kind)
}

fn level_of_roles<'a>(mut files: impl Iterator<Item = &'a ConfigFile>) -> u32 {
    // What is no role is refused by every build.
    let is_new = |role: &str| !FIRST_CONFIG_ROLES.contains(&role) && is_config_role(role);
    match files.any(|file| is_new(&file.role)) {
        true => ROLES_LEVEL,
        false => BASE_LEVEL,
    }
}

fn level_of_plans(commit: &CommitPlans) -> u32 {
    let is_new = |body: &PlanBody| {
        !body.head_sha.is_empty()
            || body.effects.iter().any(is_new_effect)
            || body.jobs.iter().any(is_finished)
    };
    match commit.plans.iter().any(is_new) {
        true => EFFECTS_LEVEL,
        false => BASE_LEVEL,
    }
}

fn is_finished(new: &NewJob) -> bool {
    new.job.as_ref().is_some_and(|job| is_terminal(job.state()))
}

fn is_new_effect(effect: &Effect) -> bool {
    let is_new = match &effect.action {
        None => false,
        Some(action) => match action {
            Action::Comment(comment) => !comment.inserts.is_empty(),
            Action::Close(close) => close.not_planned,
            Action::EditComment(edit) => !edit.was_sha256.is_empty(),
            Action::AddLabel(_)
            | Action::RemoveLabel(_)
            | Action::Status(_)
            | Action::PruneComments(_)
            | Action::Assign(_)
            | Action::RequestReview(_)
            | Action::Unassign(_) => false,
            _ => true,
        },
    };
    is_new || effect.condition.is_some() || !effect.head_sha.is_empty()
}

fn level_of_settling(settle: &SettleEffect) -> u32 {
    let is_new = settle.state() == EffectState::Skipped
        || settle.outcome() != EffectOutcome::Unspecified
        || !settle.result.is_empty();
    match is_new {
        true => EFFECTS_LEVEL,
        false => BASE_LEVEL,
    }
}

/// What a command must say at a cluster's level: where the level changed what a kind does, a build that does not know that
/// must stop before it applies one.
pub fn min_level_at(body: &Body, level: u32) -> u32 {
    match body {
        Body::OpenIntent(_) if level >= 3 => 3,
        _ => BASE_LEVEL,
    }
}

/// Whether this build knows the command's kind. A node stops before it applies one that it does not know.
pub fn is_known(command: &Command) -> bool {
    let known = match &command.body {
        None => false,
        // What the cluster may hold from here on is more than this build knows.
        Some(Body::RaiseFeatureLevel(raise)) => raise.level <= FEATURE_LEVEL,
        Some(_) => true,
    };
    known && min_level_of(command) <= FEATURE_LEVEL
}
