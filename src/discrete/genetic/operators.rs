//! Crossover, mutation and selection, with all random decisions as arguments.

use crate::error::{Result, check_length};
use std::cmp::Ordering;

/// The child of two parents, with all random decisions as arguments.
///
/// ```text
/// child = where(mutation, values, where(crossover, b, a))
/// ```
/// All arguments have one entry per gene. Without crossover and mutation it is a copy of `a`.
///
/// # Errors
/// [`LengthMismatch`](crate::Error::LengthMismatch) names the argument whose length is not that of `a`.
///
/// # Examples
/// ```
/// use eigenstep::discrete::genetic::child;
///
/// let born = child(&[1.0, 2.0, 3.0], &[7.0, 8.0, 9.0], &[true, false, true], &[false, false, true],
///     &[0.0; 3])?;
/// assert_eq!(born, [7.0, 2.0, 0.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn child(
    a: &[f64],
    b: &[f64],
    crossover: &[bool],
    mutation: &[bool],
    values: &[f64],
) -> Result<Vec<f64>> {
    let lengths = [
        ("b", b.len()),
        ("crossover", crossover.len()),
        ("mutation", mutation.len()),
        ("values", values.len()),
    ];
    for (name, found) in lengths {
        check_length(name, &[a.len()], a.len(), found)?;
    }
    let pairs = a.iter().zip(b).zip(crossover).map(|((&a, &b), &cross)| if cross { b } else { a });
    let mutated = pairs.zip(mutation.iter().zip(values));
    Ok(mutated.map(|(gene, (&mutate, &value))| if mutate { value } else { gene }).collect())
}

/// Orders smaller numbers first and NaN last.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The indices of the `elite` smallest losses, best first: the survivors of a generation.
///
/// NaN comes last. Of equal losses, the earlier one comes first, so that parents win ties if they stand
/// before their children.
///
/// # Examples
/// ```
/// use eigenstep::discrete::genetic::survivors;
///
/// assert_eq!(survivors(&[2.0, f64::NAN, 1.0, 2.0], 3), [2, 0, 3]);
/// assert_eq!(survivors(&[f64::NAN], 3), [0]);
/// ```
pub fn survivors(fitness: &[f64], elite: usize) -> Vec<usize> {
    let mut ranked: Vec<(usize, f64)> = fitness.iter().copied().enumerate().collect();
    // a stable sort: ties keep their order
    ranked.sort_by(|(_, a), (_, b)| order(*a, *b));
    ranked.into_iter().take(elite).map(|(index, _)| index).collect()
}
