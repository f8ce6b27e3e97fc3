//! Ridge regression: enough linear algebra for a few dozen coefficients.

/// Added to every penalty, so that columns that repeat each other can still be solved for.
const TINY: f64 = 1e-9;

/// The scalar product.
pub fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// The average, 0 of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) =
        values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The coefficients `β` that minimise `Σ (y − x·β)² + Σ λᵢ βᵢ²`, of rows that are added one by one.
///
/// With columns of mean square one, a penalty `λ` counts like that many rows that say zero.
#[derive(Clone, Debug)]
pub struct Ridge {
    /// The lower triangle of `XᵀX + diag(λ)`.
    normal: Vec<Vec<f64>>,
    /// `Xᵀy`.
    right: Vec<f64>,
}

impl Ridge {
    /// One column for each penalty, and no rows yet.
    pub fn new(penalties: &[f64]) -> Self {
        let triangle = penalties.iter().enumerate().map(|(at, penalty)| {
            let mut row = vec![0.0; at + 1];
            row[at] = penalty + TINY;
            row
        });
        Ridge { normal: triangle.collect(), right: vec![0.0; penalties.len()] }
    }

    /// Adds an observation `target` at the point `row`.
    pub fn add(&mut self, row: &[f64], target: f64) {
        for ((value, normal), right) in row.iter().zip(&mut self.normal).zip(&mut self.right) {
            for (sum, other) in normal.iter_mut().zip(row) {
                *sum += value * other;
            }
            *right += value * target;
        }
    }

    /// The coefficients: all 0 without rows.
    pub fn solve(self) -> Vec<f64> {
        let Ridge { normal, right } = self;
        let lower = cholesky(normal);
        let mut halfway: Vec<f64> = Vec::with_capacity(right.len());
        for (row, target) in lower.iter().zip(&right) {
            let at = halfway.len();
            halfway.push((target - dot(row, &halfway)) / row[at]);
        }
        let mut solution = halfway;
        for at in (0..solution.len()).rev() {
            let below: f64 =
                (at + 1..lower.len()).map(|later| lower[later][at] * solution[later]).sum();
            solution[at] = (solution[at] - below) / lower[at][at];
        }
        solution
    }

    /// [`solve`](Ridge::solve) for a number of columns that is known beforehand.
    pub fn solve_array<const N: usize>(self) -> [f64; N] {
        let solution = self.solve();
        std::array::from_fn(|at| solution.get(at).copied().unwrap_or(0.0))
    }
}

/// The lower triangle `L` with `L·Lᵀ = matrix`, from the lower triangle of a positive definite matrix.
fn cholesky(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for row in 0..matrix.len() {
        let (above, rest) = matrix.split_at_mut(row);
        let current = &mut rest[0];
        for (column, other) in above.iter().enumerate() {
            let explained = dot(&current[..column], &other[..column]);
            current[column] = (current[column] - explained) / other[column];
        }
        let explained = dot(&current[..row], &current[..row]);
        // Rounding can push a pivot below zero when columns all but repeat each other.
        current[row] = (current[row] - explained).max(TINY).sqrt();
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(rows: &[([f64; 2], f64)], penalties: [f64; 2]) -> Vec<f64> {
        let mut ridge = Ridge::new(&penalties);
        for (row, target) in rows {
            ridge.add(row, *target);
        }
        ridge.solve()
    }

    #[track_caller]
    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn without_a_penalty_a_line_is_found() {
        let line: Vec<_> = (0..5).map(f64::from).map(|x| ([1.0, x], 3.0 - 2.0 * x)).collect();
        assert_near(&fit(&line, [0.0, 0.0]), &[3.0, -2.0]);
    }

    #[test]
    fn a_penalty_counts_like_as_many_rows_that_say_zero() {
        let ones = [([1.0, 0.0], 6.0); 4];
        assert_near(&fit(&ones, [4.0, 1.0]), &[3.0, 0.0]);
    }

    #[test]
    fn columns_that_repeat_each_other_share_the_effect() {
        let twins: Vec<_> = (0..5).map(f64::from).map(|x| ([x, x], 4.0 * x)).collect();
        let found = fit(&twins, [1e-3, 1e-3]);
        assert!((found[0] - 2.0).abs() < 1e-3 && (found[1] - 2.0).abs() < 1e-3, "{found:?}");
        assert!(fit(&twins, [0.0, 0.0]).iter().all(|it| it.is_finite()));
    }

    #[test]
    fn nothing_is_learned_from_no_rows() {
        assert_near(&fit(&[], [1.0, 0.0]), &[0.0, 0.0]);
        assert_near(&Ridge::new(&[]).solve(), &[]);
    }
}
