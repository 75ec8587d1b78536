//! Where the real outbox tells how jobs with [`REPORTER`] stand: the forge, whose calls come late and lose their answers.

use async_trait::async_trait;
use trireme_office::Office;
use trireme_report::{Owed, Reporter, Told};

use super::forge::Forge;

pub(crate) const REPORTER: &str = "forge";

pub(crate) struct Teller(pub(crate) Forge);

#[async_trait]
impl Reporter for Teller {
    fn name(&self) -> &'static str {
        REPORTER
    }

    async fn tell(&self, office: &Office, owed: &[Owed]) -> Vec<Told> {
        let mut told = Vec::new();
        for owed in owed {
            // The rest is the next holder's.
            if office.assert_held().await.is_err() {
                break;
            }
            let answered = self.0.tell(&owed.record.id, owed.report.owed).await;
            told.push(match answered {
                Some(()) => Told::Delivered { comment_id: 0 },
                None => Told::Outage {
                    why: "no answer".to_owned(),
                    retry_after: None,
                },
            });
        }
        told
    }
}
