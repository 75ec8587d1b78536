//! Which commands make the state larger: those that a cluster whose disks are full refuses.

use trireme_proto::state::command::Body;

/// Whether a command makes records that stay. What finishes, shrinks or removes is let through on a full disk, as is what
/// is needed to see and mend the trouble; so are changes of a record that is there, without which it would never leave.
///
/// One match without a wildcard: a new kind has to be thought about here.
pub fn grows(body: &Body) -> bool {
    match body {
        Body::PutBlobChunk(_)
        | Body::AcceptDelivery(_)
        | Body::CreateJobs(_)
        | Body::PutPullRequests(_)
        | Body::OpenIntent(_)
        | Body::PutConfig(_)
        | Body::PutConfigPage(_)
        | Body::PutCursor(_)
        | Body::PutTimer(_) => true,
        // Plugins with nothing to do let their delivery go.
        Body::CommitPlans(plans) => !plans.plans.is_empty(),
        Body::PutPool(pool) => !pool.remove,
        Body::SettlePlan(_)
        | Body::StartEffect(_)
        | Body::SettleEffect(_)
        | Body::TriggerJob(_)
        | Body::LeaseJob(_)
        | Body::StartJob(_)
        | Body::FinishJob(_)
        | Body::ReleaseLease(_)
        | Body::AbortJobs(_)
        | Body::SetJobUrl(_)
        | Body::SettleReport(_)
        | Body::SettleIntent(_)
        | Body::SweepJobs(_)
        | Body::SweepDeliveries(_)
        | Body::SweepBlobs(_)
        | Body::DropTimer(_)
        | Body::Redrive(_)
        // An agent that comes back has runs to finish; there are few and small ones.
        | Body::RegisterAgent(_)
        | Body::SetAgent(_)
        | Body::TakeOffice(_)
        | Body::RaiseFeatureLevel(_)
        | Body::SetAlarm(_)
        // Who mends it may need one; there are few and small ones.
        | Body::PutToken(_)
        | Body::RevokeToken(_)
        | Body::BeginAudit(_)
        | Body::ReportDigest(_) => false,
    }
}
