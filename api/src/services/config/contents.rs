//! Contents of configurations on their way into the log: many small ones share an entry because many are proposed at
//! once.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tonic::{Status, Streaming};
use trireme_proto::api::{PutConfigContentsRequest, PutConfigContentsResponse};

use crate::{
    auth::Who,
    configs::{MAX_FILE_BYTES, MAX_LOAD_FILES},
    flow::{CONTENTS_TIME, Patience},
    services::Services,
};

/// Contents of one call on their way at once.
const ON_THEIR_WAY: usize = 64;
/// Their bytes; a larger one goes alone.
const BYTES_ON_THEIR_WAY: usize = 4 << 20;

pub(super) async fn take(
    services: &Services,
    who: &Who,
    mut parts: Streaming<PutConfigContentsRequest>,
) -> Result<PutConfigContentsResponse, Status> {
    let mut answer = PutConfigContentsResponse::default();
    let mut content = BytesMut::new();
    let mut putting = FuturesUnordered::new();
    let mut bytes = 0;
    let patience = Patience::of(CONTENTS_TIME);
    while let Some(part) = patience.next(parts.message()).await? {
        for piece in part.pieces {
            if content.len() + piece.data.len() > MAX_FILE_BYTES {
                return Err(Status::invalid_argument(format!(
                    "a file of a configuration is at most {MAX_FILE_BYTES} bytes"
                )));
            }
            content.extend_from_slice(&piece.data);
            if !piece.end {
                continue;
            }
            let whole = std::mem::take(&mut content).freeze();
            answer.contents = answer.contents.saturating_add(1);
            answer.bytes = answer.bytes.saturating_add(whole.len() as u64);
            if answer.contents as usize > MAX_LOAD_FILES {
                return Err(Status::invalid_argument(format!(
                    "at most {MAX_LOAD_FILES} contents in one call"
                )));
            }
            while !putting.is_empty()
                && (putting.len() >= ON_THEIR_WAY || bytes + whole.len() > BYTES_ON_THEIR_WAY)
            {
                if let Some(done) = putting.next().await {
                    bytes -= settle(done, &mut answer)?;
                }
            }
            bytes += whole.len();
            putting.push(put(services, who, whole));
        }
    }
    if !content.is_empty() {
        return Err(Status::invalid_argument(
            "the last content has no end: put it again",
        ));
    }
    while let Some(done) = putting.next().await {
        settle(done, &mut answer)?;
    }
    Ok(answer)
}

type Put = Result<(usize, bool), Status>;

fn settle(put: Put, answer: &mut PutConfigContentsResponse) -> Result<usize, Status> {
    let (bytes, stored) = put?;
    answer.stored = answer.stored.saturating_add(u32::from(stored));
    Ok(bytes)
}

async fn put(services: &Services, who: &Who, content: Bytes) -> Put {
    let bytes = content.len();
    let stored = services.put_blob(who, content).await?;
    Ok((bytes, stored))
}
