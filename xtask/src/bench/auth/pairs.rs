//! Whether one thing takes longer than another: both are measured in pairs, so that what else the
//! machine does meets both, and what was not found is told together with what would have been.

/// How long the two of each pair took, in microseconds.
#[derive(Debug, Default)]
pub struct Pairs(pub Vec<(f64, f64)>);

/// How far the two are apart on average, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    pub mean: f64,
    /// The standard error of the mean.
    pub error: f64,
}

impl Pairs {
    /// The means of the first and of the second.
    pub fn means(&self) -> Option<(f64, f64)> {
        let count = self.0.len() as f64;
        let sums = self.0.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        (!self.0.is_empty()).then_some((sums.0 / count, sums.1 / count))
    }

    /// The first less the second of each pair, without so many percent of the pairs at either end: those
    /// that something else held up.
    /// Its error is that of Tukey and `McLaughlin`, from what is left with its ends in place of what was
    /// taken away. Two pairs at least have to be left: one says nothing of how much they vary.
    pub fn trimmed(&self, percent: usize) -> Option<Difference> {
        let mut all: Vec<f64> = self.0.iter().map(|it| it.0 - it.1).collect();
        all.sort_by(f64::total_cmp);
        let away = all.len() * percent / 100;
        let left = all.get(away..all.len().checked_sub(away)?).filter(|it| it.len() > 1)?;
        let (count, many) = (all.len() as f64, left.len() as f64);
        let mean = left.iter().sum::<f64>() / many;
        let (low, high) = (*left.first()?, *left.last()?);
        let held: Vec<f64> = all.iter().map(|it| it.clamp(low, high)).collect();
        let center = held.iter().sum::<f64>() / count;
        let squares: f64 = held.iter().map(|it| (it - center).powi(2)).sum();
        let error = (squares / (count - 1.0)).sqrt() * count.sqrt() / many;
        Some(Difference { mean, error })
    }
}

impl Difference {
    /// Whether it is more than chance, at a level of 5 %, two-sided.
    pub fn is_found(self) -> bool {
        self.mean.abs() > 1.960 * self.error
    }

    /// The smallest difference that [`Difference::is_found`] finds in 95 of 100 runs such as this: its
    /// power. Normal quantiles of 0.975 and 0.95.
    pub fn would_be_found(self) -> f64 {
        (1.960 + 1.645) * self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_pairs_share_is_no_error() {
        let pairs = Pairs([10.0, 50.0, 30.0, 90.0].map(|it| (it + 2.0, it)).into());
        let found = pairs.trimmed(0).unwrap();
        assert_eq!((found.mean, found.error), (2.0, 0.0));
        assert!(found.is_found());
        assert_eq!(pairs.means(), Some((47.0, 45.0)));
    }

    #[test]
    fn a_difference_is_found_when_it_is_twice_its_error() {
        // Differences of 1 and 3: mean 2, standard deviation √(4/3) of four, error √(1/3).
        let pairs = Pairs([(1.0, 0.0), (3.0, 0.0), (1.0, 0.0), (3.0, 0.0)].into());
        let found = pairs.trimmed(0).unwrap();
        assert!((found.error - (1.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!(found.is_found());
        let chance = Pairs([(1.0, 0.0), (0.0, 3.0), (3.0, 0.0), (0.0, 1.0)].into());
        let chance = chance.trimmed(0).unwrap();
        assert!(!chance.is_found());
        assert!((chance.would_be_found() / chance.error - 3.605).abs() < 1e-9);
    }

    #[test]
    fn what_was_held_up_counts_only_untrimmed() {
        let mut all: Vec<_> = (0..20).map(|it| (f64::from(it), 0.0)).collect();
        let even = Pairs(all.clone()).trimmed(10).unwrap();
        assert!((even.mean - 9.5).abs() < 1e-9);
        // Of 2, 2, 2, 3, … 16, 17, 17, 17: squares of 2 · (2 · 7.5² + (0.5² + … + 7.5²)) = 565 about 9.5.
        assert!((even.error - (565.0_f64 / 19.0 * 20.0).sqrt() / 16.0).abs() < 1e-9);
        all[19].0 = 100_000.0;
        let held_up = Pairs(all);
        let trimmed = held_up.trimmed(10).unwrap();
        assert!((trimmed.mean - even.mean).abs() < 1e-9);
        assert!((trimmed.error - even.error).abs() < 1e-9);
        assert!(held_up.trimmed(0).unwrap().mean > 5000.0);
    }

    #[test]
    fn one_pair_tells_nothing() {
        assert!(Pairs(vec![(1.0, 2.0)]).trimmed(0).is_none());
        assert!(Pairs::default().means().is_none());
    }
}
