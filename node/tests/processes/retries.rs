//! A client that heard no answer asks again, at another node or the same: nothing is made twice.

use trireme_api::client::Client;
use trireme_proto::api::{
    CreateJobRequest, ListJobsRequest, RerunJobRequest, create_job_request::What,
};

use crate::scene::Nodes;

fn request(request_id: &str) -> CreateJobRequest {
    let prowjob = serde_json::json!({
        "apiVersion": "prow.k8s.io/v1",
        "kind": "ProwJob",
        "spec": {"type": "periodic", "job": "again", "agent": "kubernetes", "cluster": "nowhere"},
    });
    CreateJobRequest {
        request_id: request_id.to_owned(),
        what: Some(What::Prowjob(prowjob.to_string().into())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_makes_one_job_at_any_node_and_across_a_restart() {
    let mut nodes = Nodes::start(3).await;
    let mut made = Vec::new();
    let mut rerun = Vec::new();
    for id in 1..=3 {
        let client = Client::connect(&nodes.url(id)).await.unwrap();
        let created = client.jobs().create_job(request("one")).await.unwrap();
        made.push(created.into_inner().id);
        let again = RerunJobRequest {
            id: made[0].clone(),
            request_id: "one".to_owned(),
        };
        let again = client.jobs().rerun_job(again).await.unwrap();
        rerun.push(again.into_inner().id);
    }
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    nodes.cluster.kill(leader).await.unwrap();
    nodes.cluster.restart(leader).unwrap();
    nodes.cluster.wait_until_caught_up(leader).await.unwrap();
    let client = nodes.cluster.client().await.unwrap();
    let created = client.jobs().create_job(request("one")).await.unwrap();
    made.push(created.into_inner().id);

    made.dedup();
    rerun.dedup();
    assert_eq!((made.len(), rerun.len()), (1, 1), "{made:?} {rerun:?}");
    assert_ne!(made, rerun);
    let other = client.jobs().create_job(request("two")).await.unwrap();
    let other = other.into_inner().id;
    let listed = client.jobs().list_jobs(ListJobsRequest::default()).await;
    let mut listed: Vec<String> = listed
        .unwrap()
        .into_inner()
        .jobs
        .into_iter()
        .map(|job| job.id)
        .collect();
    let mut expected = vec![made.remove(0), rerun.remove(0), other];
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    nodes.cluster.stop().await.unwrap();
}
