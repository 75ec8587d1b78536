//! Which of a batch's members go together, where files that are good one by one may clash: whoever clashes is found and
//! left out, and the others stay (TIDE-075). Who clashes is found out elsewhere.

/// Looks at members together that one batch may cost; each merges their heads and reads files from git. Enough for
/// three that clash among ten.
pub(crate) const MAX_LOOKS: usize = 16;

/// The search for those that fit: [`next`](Self::next) says whom to look at together, [`told`](Self::told) is told what
/// came of it. One alone is never looked at: who is in the pool is good by himself.
pub(crate) struct Fitting {
    all: Vec<u64>,
    /// Without those that were left out.
    numbers: Vec<u64>,
    /// So many of the first ones fit.
    good: usize,
    /// So many of the first ones clash.
    bad: Option<usize>,
    clash_with_first: usize,
    /// To be looked at: all but the first one.
    without_first: bool,
    looks_left: usize,
}

impl Fitting {
    pub(crate) fn new(numbers: Vec<u64>) -> Self {
        Self {
            all: numbers.clone(),
            good: numbers.len().min(1),
            numbers,
            bad: None,
            clash_with_first: 0,
            without_first: false,
            looks_left: MAX_LOOKS,
        }
    }

    pub(crate) fn next(&self) -> Option<&[u64]> {
        if self.looks_left == 0 {
            None
        } else if self.without_first {
            self.all.get(1..)
        } else if self.good >= self.numbers.len() {
            None
        } else {
            self.numbers.get(..self.present())
        }
    }

    /// How many of the first ones are looked at: all, then ever closer to where the clash begins.
    fn present(&self) -> usize {
        self.bad
            .map_or(self.numbers.len(), |bad| self.good.midpoint(bad))
    }

    /// Why those that [`next`](Self::next) named clash; nothing if they do not.
    pub(crate) fn told(&mut self, clash: Option<&str>) {
        self.looks_left = self.looks_left.saturating_sub(1);
        if std::mem::take(&mut self.without_first) {
            if clash.is_none() {
                let first = self.all.remove(0);
                tracing::info!(
                    number = first,
                    "left out of the batch: the others fit without it"
                );
                self.good = self.all.len();
                self.numbers.clone_from(&self.all);
            }
            return;
        }
        let present = self.present();
        match clash {
            None => self.good = present,
            Some(_) => self.bad = Some(present),
        }
        let Some(bad) = self.bad.filter(|bad| bad - self.good == 1) else {
            return;
        };
        // The shortest beginning that clashes ends with whoever is to be left out.
        let number = self.numbers.remove(self.good);
        tracing::info!(number, why = clash, "left out of the batch");
        self.bad = None;
        if bad == 2 {
            self.clash_with_first += 1;
            // It may rather be the first one that has to go.
            self.without_first = self.clash_with_first == 2;
        }
    }

    /// Whoever was found to fit, in their order.
    pub(crate) fn found(mut self) -> Vec<u64> {
        if self.good < self.numbers.len() {
            let unknown = &self.numbers[self.good..];
            tracing::info!(numbers = ?unknown, "left out of the batch: {MAX_LOOKS} looks were not enough");
            self.numbers.truncate(self.good);
        }
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members clash where a pair of them is listed. Who fits, and how many looks it took.
    fn fit(numbers: &[u64], pairs: &[(u64, u64)]) -> (Vec<u64>, usize) {
        let mut looks = 0;
        let mut fitting = Fitting::new(numbers.to_vec());
        while let Some(some) = fitting.next() {
            assert!(some.len() > 1);
            looks += 1;
            let both = |(one, other): &(u64, u64)| some.contains(one) && some.contains(other);
            let clash = pairs.iter().any(both).then_some("they clash");
            fitting.told(clash);
        }
        (fitting.found(), looks)
    }

    #[test]
    fn tide_075_whoever_clashes_is_left_out_and_the_others_stay() {
        assert_eq!(fit(&[1, 2, 3, 4], &[]), (vec![1, 2, 3, 4], 1));
        // Wherever it stands.
        assert_eq!(fit(&[1, 2, 3, 4], &[(1, 2)]).0, [1, 3, 4]);
        assert_eq!(fit(&[1, 2, 3, 4], &[(2, 3)]).0, [1, 2, 4]);
        assert_eq!(fit(&[1, 2, 3, 4], &[(1, 4)]).0, [1, 2, 3]);
        assert_eq!(fit(&[1, 2, 3, 4, 5], &[(1, 2), (3, 5)]).0, [1, 3, 4]);
        assert_eq!(fit(&[1, 2], &[(1, 2)]).0, [1]);
        assert_eq!(fit(&[1], &[]), (vec![1], 0));
        assert_eq!(fit(&[], &[]), (vec![], 0));
    }

    #[test]
    fn tide_075_one_that_clashes_with_others_is_the_one_left_out() {
        assert_eq!(fit(&[1, 2, 3, 4], &[(1, 2), (1, 3), (1, 4)]).0, [2, 3, 4]);
        assert_eq!(fit(&[1, 2, 3, 4], &[(1, 2), (1, 3)]).0, [2, 3, 4]);
        assert_eq!(fit(&[1, 2, 3, 4], &[(1, 2), (1, 3), (2, 3)]).0, [1, 4]);
        // No two go together.
        assert_eq!(fit(&[1, 2, 3], &[(1, 2), (1, 3), (2, 3)]).0, [1]);
    }

    #[test]
    fn tide_075_looks_are_bounded_and_what_was_found_good_is_kept() {
        let numbers: Vec<u64> = (1..=100).collect();
        let pairs: Vec<(u64, u64)> = (51..=100).map(|number| (1, number)).collect();
        let half: Vec<u64> = (1..=50).collect();
        assert_eq!(fit(&numbers, &pairs), (half, MAX_LOOKS));
        // One in front costs little, however many there are.
        let all: Vec<(u64, u64)> = (2..=100).map(|number| (1, number)).collect();
        let (fit, looks) = fit(&numbers, &all);
        assert_eq!((fit.len(), fit[0]), (99, 2));
        assert!(looks <= MAX_LOOKS, "{looks}");
    }
}
