//! Webhook deliveries, what was planned for them, and another try for what was given up.

use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest, ListDeliveriesResponse,
        RedriveRequest, RedriveResponse, delivery_service_server::DeliveryService,
    },
    state::{Delivery, Plan, Redrive, command::Body},
};
use trireme_state::DeliveryFilter;

use super::{Services, caller, page_end, page_size, page_start};
use crate::inbox::{self, Whole};

pub(crate) struct Door(pub(crate) Services);

fn without_payload(delivery: &Delivery) -> Delivery {
    let mut delivery = Delivery {
        payload_zstd: bytes::Bytes::new(),
        ..delivery.clone()
    };
    inbox::hide_secrets(&mut delivery);
    delivery
}

fn filter(asked: &ListDeliveriesRequest) -> Result<DeliveryFilter, Status> {
    Ok(DeliveryFilter {
        unhandled: asked.only_unhandled,
        dead: asked.only_dead,
        org: asked.org.clone(),
        repo: asked.repo.clone(),
        number: asked.number,
        plugin: asked.plugin.clone(),
        before: page_start(&asked.page_token)?,
    })
}

#[async_trait]
impl DeliveryService for Door {
    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        let (filter, size) = (filter(asked)?, page_size(asked.page_size));
        let listed = if asked.archived {
            inbox::list_all(&self.0.store.archive(), &view, &filter, size).await?
        } else {
            inbox::list(&view, &filter, size)
        };
        Ok(Response::new(ListDeliveriesResponse {
            deliveries: listed
                .deliveries
                .iter()
                .map(|delivery| without_payload(delivery))
                .collect(),
            plans: listed.plans.iter().map(|plan| Plan::clone(plan)).collect(),
            next_page_token: page_end(listed.next.is_some(), listed.next),
            revision: view.revision,
        }))
    }

    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Result<Response<GetDeliveryResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        let found = inbox::find(&self.0.store.archive(), &view, &asked.guid).await?;
        let Whole {
            delivery,
            plans,
            payload,
            archived,
        } = found.ok_or_else(|| no_such(&asked.guid))?;
        Ok(Response::new(GetDeliveryResponse {
            delivery: Some(without_payload(&delivery)),
            plans: plans.iter().map(|plan| Plan::clone(plan)).collect(),
            payload_gone: payload.is_none(),
            payload: payload.unwrap_or_default(),
            revision: view.revision,
            archived,
        }))
    }

    async fn redrive(
        &self,
        request: Request<RedriveRequest>,
    ) -> Result<Response<RedriveResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        if asked.job_id.is_empty() {
            self.check_redrivable(&asked).await?;
        }
        let body = Body::Redrive(Redrive {
            guid: asked.guid,
            plugin: asked.plugin,
            ordinal: asked.ordinal,
            job_id: asked.job_id,
            reporter: asked.reporter,
            again: false,
        });
        let (revision, _) = self.0.propose(&who, &asked.request_id, body).await?;
        Ok(Response::new(RedriveResponse { revision }))
    }
}

fn no_such(guid: &str) -> Status {
    Status::not_found(format!(
        "no delivery {guid:?}, in memory or in this node's archive; `trireme get deliveries --archived` lists them"
    ))
}

impl Door {
    /// Says what to do instead where there is nothing that could be revived; the state has the last word.
    async fn check_redrivable(&self, asked: &RedriveRequest) -> Result<(), Status> {
        let view = self.0.store.view();
        let (guid, plugin) = (&asked.guid, &asked.plugin);
        let Some(delivery) = view.delivery(guid) else {
            let whole = inbox::find(&self.0.store.archive(), &view, guid).await?;
            return Err(match whole {
                None => no_such(guid),
                Some(_) => Status::failed_precondition(format!(
                    "delivery {guid} is in the archive, where nothing is done any more; \
                     have the forge send it again (the webhook's recent deliveries, Redeliver): it is then taken anew"
                )),
            });
        };
        if view.plan(guid, plugin).is_some() {
            return Ok(());
        }
        let message = if delivery.plugins.contains(plugin) {
            format!("{plugin} had nothing to do for delivery {guid}, or has not decided yet")
        } else {
            format!(
                "{plugin:?} is none of the plugins of delivery {guid}: {}",
                match delivery.plugins.as_slice() {
                    [] => "it has none".to_owned(),
                    plugins => plugins.join(", "),
                }
            )
        };
        Err(Status::failed_precondition(format!(
            "{message}; `trireme get delivery {guid}` shows what was given up"
        )))
    }
}

#[cfg(test)]
mod tests {
    use trireme_state::arrival;

    use super::*;

    #[test]
    fn a_page_of_a_filtered_list_goes_on_where_the_last_one_ended() {
        let asked = ListDeliveriesRequest {
            only_dead: true,
            org: "acme".to_owned(),
            page_token: "12.3".to_owned(),
            ..ListDeliveriesRequest::default()
        };
        let filter = filter(&asked).unwrap();
        assert_eq!(
            page_end(true, filter.before),
            "12.3",
            "the same place in the order of arrival"
        );
        assert!(filter.dead && !filter.unhandled && filter.org == "acme");
        let delivery = Delivery {
            org: "acme".to_owned(),
            revision: 12,
            ordinal: 3,
            payload_zstd: bytes::Bytes::from_static(b"x"),
            ..Delivery::default()
        };
        assert_eq!(Some(arrival(&delivery)), filter.before);
        assert!(!filter.matches(&delivery));
        assert!(without_payload(&delivery).payload_zstd.is_empty());
    }
}
