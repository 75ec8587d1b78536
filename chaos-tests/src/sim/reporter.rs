//! Where the real outbox tells how jobs with [`REPORTER`] stand: the forge, whose calls come late and lose their answers.

use async_trait::async_trait;
use trireme_office::Office;
use trireme_report::{Owed, Reporter, Told};

use super::forge::Forge;

pub(crate) const REPORTER: &str = "forge";

/// Of so many jobs one is forgotten where that is planted.
const FORGOTTEN_ONE_IN: u8 = 2;

pub(crate) struct Teller {
    pub(crate) forge: Forge,
    /// The planted bug.
    pub(crate) forgets: bool,
}

impl Teller {
    /// Decided by the job alone: what the next holder of the office tells would hide it.
    fn forgets(&self, job: &str) -> bool {
        let sum = job.bytes().fold(0, u8::wrapping_add);
        self.forgets && sum.is_multiple_of(FORGOTTEN_ONE_IN)
    }
}

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
            let job = &owed.record.id;
            let answered = if self.forgets(job) {
                Some(())
            } else {
                self.forge.tell(job, owed.report.owed).await
            };
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
