//! Webhook deliveries, what was planned for them, and another try for what was given up.

use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest, ListDeliveriesResponse,
        RedriveRequest, RedriveResponse, delivery_service_server::DeliveryService,
    },
    state::{Delivery, Plan, Redrive, command::Body},
};

use super::{Services, caller, page_end, page_size, page_start};
use trireme_state::arrival;

use crate::{MAX_WEBHOOK_BYTES, blob};

pub(crate) struct Door(pub(crate) Services);

fn without_payload(delivery: &Delivery) -> Delivery {
    Delivery {
        payload_zstd: bytes::Bytes::new(),
        ..delivery.clone()
    }
}

#[async_trait]
impl DeliveryService for Door {
    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        let (before, size) = (page_start(&asked.page_token)?, page_size(asked.page_size));
        let records: Vec<_> = if asked.only_unhandled {
            view.open_deliveries()
                .rev()
                .skip_while(|delivery| before.is_some_and(|before| arrival(delivery) >= before))
                .take(size + 1)
                .cloned()
                .collect()
        } else {
            view.deliveries_newest_first(before)
                .take(size + 1)
                .cloned()
                .collect()
        };
        let more = records.len() > size;
        let shown = &records[..records.len().min(size)];
        Ok(Response::new(ListDeliveriesResponse {
            plans: shown
                .iter()
                .flat_map(|delivery| view.plans_of(&delivery.guid))
                .map(|plan| Plan::clone(plan))
                .collect(),
            deliveries: shown
                .iter()
                .map(|delivery| without_payload(delivery))
                .collect(),
            next_page_token: page_end(more, shown.last().map(|delivery| arrival(delivery))),
            revision: view.revision,
        }))
    }

    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Result<Response<GetDeliveryResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        let delivery = view.delivery(&asked.guid).ok_or_else(|| {
            Status::not_found(format!(
                "no delivery {:?}; `trireme get deliveries` lists them",
                asked.guid
            ))
        })?;
        let payload = match &delivery.blob {
            Some(name) => {
                blob::read(&view, name).map_err(|why| Status::data_loss(why.to_string()))?
            }
            None => blob::decompress(&delivery.payload_zstd, MAX_WEBHOOK_BYTES)
                .map_err(|why| Status::data_loss(why.to_string()))?,
        };
        Ok(Response::new(GetDeliveryResponse {
            delivery: Some(without_payload(delivery)),
            plans: view
                .plans_of(&asked.guid)
                .map(|plan| Plan::clone(plan))
                .collect(),
            payload,
            revision: view.revision,
        }))
    }

    async fn redrive(
        &self,
        request: Request<RedriveRequest>,
    ) -> Result<Response<RedriveResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let body = Body::Redrive(Redrive {
            guid: asked.guid,
            plugin: asked.plugin,
            ordinal: asked.ordinal,
            job_id: asked.job_id,
            reporter: asked.reporter,
        });
        let (revision, _) = self.0.propose(&who, &asked.request_id, body).await?;
        Ok(Response::new(RedriveResponse { revision }))
    }
}
