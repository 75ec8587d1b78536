//! Listings of deliveries: newest first, filtered, in pages.

use std::sync::Arc;

use trireme_proto::state::{Delivery, DeliveryState, EffectState, Plan};

use crate::{State, deliveries::arrival, table::Seq};

/// Deliveries that are looked at for one page: beyond, the page ends early and says where the next one begins.
const MAX_LOOKED_AT: usize = 50_000;

/// Which deliveries a listing wants; what is empty, zero or false does not restrict it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Not handled by all of their plugins yet.
    pub unhandled: bool,
    /// With a plan that was given up, or an effect that was.
    pub dead: bool,
    pub org: String,
    pub repo: String,
    /// Of the issue or pull request.
    pub number: u64,
    /// One of its plugins.
    pub plugin: String,
    /// Only those that arrived before this one: where the page before ended.
    pub before: Option<Seq>,
}

impl DeliveryFilter {
    /// By what the delivery itself says; whether anything of it is dead is in its plans.
    #[must_use]
    pub fn matches(&self, delivery: &Delivery) -> bool {
        let is = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        is(&self.org, &delivery.org)
            && is(&self.repo, &delivery.repo)
            && (self.number == 0 || self.number == delivery.number)
            && (self.plugin.is_empty() || delivery.plugins.contains(&self.plugin))
            && (!self.unhandled || delivery.state() != DeliveryState::Handled)
            && self.before.is_none_or(|before| arrival(delivery) < before)
    }

    /// Whether a plan of a delivery that matches is why it is listed, or no plan has to be.
    #[must_use]
    pub fn wants_plan(&self, plan: &Plan) -> bool {
        let of_plugin = self.plugin.is_empty() || plan.plugin == self.plugin;
        !self.dead || (of_plugin && is_dead(plan))
    }
}

/// A stretch of a listing.
#[derive(Clone, Debug, Default)]
pub struct DeliveryPage {
    /// Newest first.
    pub deliveries: Vec<Arc<Delivery>>,
    /// Where the next page begins ([`DeliveryFilter::before`]), if there may be one: pages may be short, even empty.
    pub next: Option<Seq>,
}

/// Whether it was given up, or an effect of it was.
#[must_use]
pub fn is_dead(plan: &Plan) -> bool {
    plan.dead
        || plan
            .effects
            .iter()
            .any(|effect| effect.state() == EffectState::Dead)
}

/// What a person can have tried again of a plan, as `Redrive` names it: the ordinals of dead effects; 0 alone for a
/// decision that was given up.
#[must_use]
pub fn redrivable(plan: &Plan) -> Vec<u32> {
    if plan.dead {
        return vec![0];
    }
    (0..)
        .zip(&plan.effects)
        .filter(|(_, effect)| effect.state() == EffectState::Dead)
        .map(|(ordinal, _)| ordinal)
        .collect()
}

impl State {
    /// At most `size` deliveries in memory that the filter wants.
    #[must_use]
    pub fn find_deliveries(&self, filter: &DeliveryFilter, size: usize) -> DeliveryPage {
        if filter.dead {
            return self.find_dead(filter, size);
        }
        if filter.unhandled {
            let before = |delivery: &&Arc<Delivery>| {
                filter
                    .before
                    .is_none_or(|before| arrival(delivery) < before)
            };
            // Those that came since the page before are at the end of a queue whose length is bounded, too.
            return page(
                self.open_deliveries().rev().skip_while(move |d| !before(d)),
                filter,
                size,
            );
        }
        page(self.deliveries_newest_first(filter.before), filter, size)
    }

    fn find_dead(&self, filter: &DeliveryFilter, size: usize) -> DeliveryPage {
        // A delivery's dead plans are next to each other.
        let mut last = None;
        let dead = self.dead_plans().rev().filter_map(|plan| {
            let seq = Seq {
                revision: plan.revision,
                ordinal: plan.ordinal,
            };
            let wanted = filter.before.is_none_or(|before| seq < before) && filter.wants_plan(plan);
            if !wanted || last == Some(seq) {
                return None;
            }
            last = Some(seq);
            self.delivery(&plan.guid)
        });
        page(dead, filter, size)
    }
}

fn page<'a>(
    newest_first: impl Iterator<Item = &'a Arc<Delivery>>,
    filter: &DeliveryFilter,
    size: usize,
) -> DeliveryPage {
    let mut page = DeliveryPage::default();
    let mut last = None;
    for (looked_at, delivery) in newest_first.enumerate() {
        if page.deliveries.len() >= size || looked_at >= MAX_LOOKED_AT {
            page.next = last;
            break;
        }
        last = Some(arrival(delivery));
        if filter.matches(delivery) {
            page.deliveries.push(Arc::clone(delivery));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::Effect;

    use super::*;

    fn plan(dead: bool, effects: &[EffectState]) -> Plan {
        let effect = |state: &EffectState| Effect {
            state: (*state).into(),
            ..Effect::default()
        };
        Plan {
            plugin: "hold".to_owned(),
            dead,
            effects: effects.iter().map(effect).collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn what_is_dead_can_be_tried_again_and_what_was_skipped_stays_so() {
        use EffectState::{Dead, Done, Skipped, Waiting};
        assert_eq!(redrivable(&plan(true, &[])), [0]);
        assert_eq!(
            redrivable(&plan(false, &[Done, Dead, Skipped, Dead])),
            [1, 3]
        );
        assert_eq!(
            redrivable(&plan(false, &[Done, Skipped, Waiting])),
            [0_u32; 0]
        );
        assert!(!is_dead(&plan(false, &[Skipped])) && is_dead(&plan(false, &[Done, Dead])));
    }

    #[test]
    fn a_delivery_is_found_by_what_it_is_about() {
        let delivery = Delivery {
            org: "acme".to_owned(),
            repo: "widget".to_owned(),
            number: 7,
            plugins: vec!["hold".to_owned()],
            state: DeliveryState::Handled.into(),
            revision: 5,
            ..Delivery::default()
        };
        let fits = |change: fn(&mut DeliveryFilter)| {
            let mut filter = DeliveryFilter::default();
            change(&mut filter);
            filter.matches(&delivery)
        };
        assert!(fits(|_| ()));
        assert!(fits(|filter| filter.org = "acme".to_owned()));
        assert!(!fits(|filter| filter.repo = "other".to_owned()));
        assert!(!fits(|filter| filter.number = 8));
        assert!(fits(|filter| filter.plugin = "hold".to_owned()));
        assert!(!fits(|filter| filter.plugin = "lgtm".to_owned()));
        assert!(!fits(|filter| filter.unhandled = true));
        let at = |revision| {
            Some(Seq {
                revision,
                ordinal: 0,
            })
        };
        let before = |before| DeliveryFilter {
            before,
            ..DeliveryFilter::default()
        };
        assert!(before(at(6)).matches(&delivery) && !before(at(5)).matches(&delivery));
        let of = |plugin: &str| DeliveryFilter {
            dead: true,
            plugin: plugin.to_owned(),
            ..DeliveryFilter::default()
        };
        assert!(
            of("hold").wants_plan(&plan(true, &[])) && !of("lgtm").wants_plan(&plan(true, &[]))
        );
        assert!(DeliveryFilter::default().wants_plan(&plan(false, &[])));
    }
}
