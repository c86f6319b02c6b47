//! The elements that Adagrad would move furthest.

use super::{Compressor, Message, Selection};
use crate::error::{Error, Result};
use crate::hyper::Range;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateTensor};

/// The largest elements relative to Adagrad's denominator. A small element of a coordinate that was
/// rarely sent is kept before a large element of one that is always sent.
///
/// ```text
/// S = the selection's choice of |x|/√G;   G = ε at first
/// C(x) = x on S, 0 elsewhere;   G ← G + C(x)²                δ ≥ 0
/// ```
/// The values of the elements do not change. A vector of an unexpected length is sent uncompressed.
/// The residual is never longer than `x`. How much shorter it is depends on `G`, so there is no
/// better constant than 0.
///
/// State: `G`, 4 bytes per element in `f32`. Compression takes a scratch buffer of the same size.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::Selection;
/// use eigenstep::error_feedback::compressor::{Compressor, ScaledTopK};
///
/// let mut compressor = ScaledTopK::new(2, Selection::Count { k: 1 }, 1e-10)?;
/// let mut sent = [0.0f64; 2];
/// compressor.compress(1, &[3.0, 1.0]).decompress_into(&mut sent);
/// assert_eq!(sent, [3.0, 0.0]);
/// // 3/√9 is less than 1/√ε
/// compressor.compress(2, &[3.0, 1.0]).decompress_into(&mut sent);
/// assert_eq!(sent, [0.0, 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// I. Modoranu, A. Kalinov, E. Kurtic, E. Frantar, D. Alistarh, "Error Feedback Can Accurately
/// Compress Preconditioners", ICML 2024: the scaled form of its sparse Adagrad.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledTopK<R> {
    selection: Selection,
    /// `G`.
    squares: Vec<R>,
}

impl<R: Real> ScaledTopK<R> {
    /// A compressor of vectors of `numel` elements. `G` starts at `eps`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for a field of the selection, and for `eps` unless it is
    /// positive and finite.
    pub fn new(numel: usize, selection: Selection, eps: f64) -> Result<Self> {
        selection.validate(NAME)?;
        if !Range::Positive.contains(eps) {
            return Err(Error::invalid(NAME, "eps", Range::Positive.describe(), eps));
        }
        let eps = R::of(eps).max(R::min_positive_value());
        Ok(Self { selection, squares: vec![eps; numel] })
    }
}

const NAME: &str = "ScaledTopK";

impl<R: Real> Compressor<R> for ScaledTopK<R> {
    fn compress(&mut self, _: u64, x: &[R]) -> Message<R> {
        let Self { selection, squares } = self;
        if squares.len() != x.len() {
            return Message::Dense(x.to_vec());
        }
        let mut indices = Vec::new();
        with_scratch::<R, _>(x.len(), |moves| {
            for ((moves, &x), &g) in moves.iter_mut().zip(x).zip(&*squares) {
                *moves = x / g.sqrt();
            }
            selection.select(moves, &mut indices);
        });
        for &index in &indices {
            if let (Some(g), Some(&x)) = (squares.get_mut(index as usize), x.get(index as usize)) {
                *g += x * x;
            }
        }
        selection.message(x, indices)
    }

    /// 0: the selected coordinates may hold almost nothing of the vector.
    fn contraction(&self, _: usize) -> f64 {
        0.0
    }

    fn validate(&self, numel: usize) -> Result<()> {
        let found = self.squares.len();
        if found != numel {
            return Err(Error::invalid(NAME, "numel", format!("the vector's {numel}"), found));
        }
        self.selection.check_numel(NAME, numel)
    }

    fn state_bytes(&self) -> usize {
        size_of_val(self.squares.as_slice())
    }

    fn save(&self, record: &mut Record<'_>) {
        record.tensor("squares", StateTensor::new(&[self.squares.len()], &self.squares));
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let squares: Vec<R> = lookup.values("squares", &[self.squares.len()])?;
        if squares.iter().any(|g| g.is_nan() || *g <= R::zero()) {
            return Err(lookup.problem("squares", "holds a number that is not positive"));
        }
        self.squares = squares;
        Ok(())
    }
}
