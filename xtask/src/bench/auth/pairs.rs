//! Whether one thing takes longer than another: both are measured in pairs, so that what else the
//! machine does meets both, and what was not found is told together with what would have been.

use super::median;

/// How long the two of each pair took, in microseconds.
#[derive(Debug, Default)]
pub struct Pairs(pub Vec<(f64, f64)>);

/// How far the two are apart, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// The mean of the first less that of the second.
    pub mean: f64,
    /// The standard error of that.
    pub error: f64,
    /// The median of the first less the second of each pair, which a few slow ones do not move.
    pub median: f64,
}

impl Pairs {
    /// The means of the first and of the second.
    pub fn means(&self) -> Option<(f64, f64)> {
        let count = self.count()?;
        let sums = self.0.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        Some((sums.0 / count, sums.1 / count))
    }

    pub fn difference(&self) -> Option<Difference> {
        let count = self.count()?;
        let all: Vec<f64> = self.0.iter().map(|it| it.0 - it.1).collect();
        let mean = all.iter().sum::<f64>() / count;
        let squares: f64 = all.iter().map(|it| (it - mean).powi(2)).sum();
        let error = (squares / (count - 1.0) / count).sqrt();
        Some(Difference { mean, error, median: median(&all)? })
    }

    /// Two pairs at least: one says nothing of how much they vary.
    fn count(&self) -> Option<f64> {
        (self.0.len() > 1).then_some(self.0.len() as f64)
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
        let found = pairs.difference().unwrap();
        assert_eq!((found.mean, found.error, found.median), (2.0, 0.0, 2.0));
        assert!(found.is_found());
        assert_eq!(pairs.means(), Some((47.0, 45.0)));
    }

    #[test]
    fn a_difference_is_found_when_it_is_twice_its_error() {
        // Differences of 1 and 3: mean 2, standard deviation √(4/3) of four, error √(1/3).
        let pairs = Pairs([(1.0, 0.0), (3.0, 0.0), (1.0, 0.0), (3.0, 0.0)].into());
        let found = pairs.difference().unwrap();
        assert!((found.error - (1.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!(found.is_found());
        let chance = Pairs([(1.0, 0.0), (0.0, 3.0), (3.0, 0.0), (0.0, 1.0)].into());
        let chance = chance.difference().unwrap();
        assert!(!chance.is_found());
        assert!((chance.would_be_found() / chance.error - 3.605).abs() < 1e-9);
    }

    #[test]
    fn one_pair_tells_nothing() {
        assert!(Pairs(vec![(1.0, 2.0)]).difference().is_none());
        assert!(Pairs::default().means().is_none());
    }
}
