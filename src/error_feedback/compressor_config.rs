//! The compressor of an optimizer, by its options.

use super::compressor::{
    Compressor, Identity, LowRank, Message, Natural, Qsgd, RandK, ScaledSign, ScaledTopK,
    Selection, TopK, check_contraction,
};
use super::window::MatrixPart;
use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::optim::Layout;
use crate::state::{Lookup, Record};

/// The compressor of an optimizer and its options.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum CompressorConfig {
    /// No compression.
    Identity,
    /// The largest elements.
    TopK(Selection),
    /// The elements that Adagrad would move furthest: the largest relative to what was sent of them
    /// before.
    ScaledTopK {
        /// How many elements.
        selection: Selection,
        /// Initial value of the sums of squares, positive.
        eps: f64,
    },
    /// Elements at random positions.
    RandK(RandK),
    /// The signs and the mean magnitude.
    ScaledSign,
    /// Equidistant levels between 0 and the norm, with stochastic rounding.
    Qsgd(Qsgd),
    /// Powers of two, with stochastic rounding.
    Natural(Natural),
    /// Two low-rank factors of every matrix. Vectors are not compressed.
    LowRank {
        /// Columns of the factors, at least 1.
        rank: usize,
        /// Seed of the first factors.
        seed: u64,
    },
}

impl CompressorConfig {
    /// Checks every option.
    pub(super) fn validate(&self, optimizer: &'static str) -> Result<()> {
        match self {
            Self::TopK(selection) => selection.validate(optimizer),
            Self::ScaledTopK { selection, eps } => {
                ScaledTopK::<f64>::new(0, *selection, *eps).map(drop)
            }
            Self::LowRank { rank: 0, .. } => {
                Err(Error::invalid(optimizer, "rank", "at least 1", 0))
            }
            Self::LowRank { .. } => Ok(()),
            // the options of these do not depend on the length of a vector
            _ => self.whole::<f64>(0).map_or(Ok(()), |compressor| compressor.validate(0)),
        }
    }

    /// Checks that a vector can be compressed and, with `feedback`, that the residual stays bounded.
    pub(super) fn check_layout(
        &self,
        optimizer: &'static str,
        layout: &Layout,
        feedback: bool,
    ) -> Result<()> {
        if let Self::TopK(selection) | Self::ScaledTopK { selection, .. } = self {
            // these are always contractions
            return selection.check_numel(optimizer, layout.numel());
        }
        match self.whole::<f64>(layout.numel()).filter(|_| feedback) {
            Some(compressor) => check_contraction(optimizer, &*compressor, layout.numel()),
            None => Ok(()),
        }
    }

    /// The compressor of a vector of `numel` elements; `None` if its matrices are compressed one by
    /// one.
    fn whole<R: Real>(&self, numel: usize) -> Option<Box<dyn CloneCompressor<R>>> {
        Some(match *self {
            Self::Identity => Box::new(Identity),
            Self::TopK(selection) => Box::new(TopK(selection)),
            Self::ScaledTopK { selection, eps } => {
                Box::new(ScaledTopK::new(numel, selection, eps).ok()?)
            }
            Self::RandK(rand_k) => Box::new(rand_k),
            Self::ScaledSign => Box::new(ScaledSign),
            Self::Qsgd(qsgd) => Box::new(qsgd),
            Self::Natural(natural) => Box::new(natural),
            Self::LowRank { .. } => return None,
        })
    }

    /// The matrices of a vector; `None` if it is compressed as a whole.
    fn matrices(&self, layout: &Layout) -> Option<Vec<MatrixPart>> {
        match self {
            Self::LowRank { rank, .. } => Some(MatrixPart::of(layout, *rank)),
            _ => None,
        }
    }

    /// Offset and length of the pieces of a vector that are compressed separately.
    pub(super) fn pieces(&self, layout: &Layout) -> Vec<(usize, usize)> {
        match self.matrices(layout) {
            Some(parts) => parts.iter().map(|part| (part.offset, part.numel())).collect(),
            None => vec![(0, layout.numel())],
        }
    }
}

/// A compressor that can be copied with its state.
pub(super) trait CloneCompressor<R: Real>: Compressor<R> {
    fn boxed(&self) -> Box<dyn CloneCompressor<R>>;
}

impl<R: Real, C: Compressor<R> + Clone + 'static> CloneCompressor<R> for C {
    fn boxed(&self) -> Box<dyn CloneCompressor<R>> {
        Box::new(self.clone())
    }
}

/// The compressors of a vector, one for every piece.
#[derive(Debug)]
pub(super) struct Compressors<R: Real>(Vec<Box<dyn CloneCompressor<R>>>);

impl<R: Real> Clone for Compressors<R> {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|compressor| (**compressor).boxed()).collect())
    }
}

impl<R: Real> Compressors<R> {
    pub fn new(config: &CompressorConfig, layout: &Layout) -> Self {
        let of_matrix = |(seed, part): (u64, MatrixPart), rank| -> Box<dyn CloneCompressor<R>> {
            match LowRank::new(part.rows, part.columns, rank, seed) {
                Ok(low_rank) if !part.is_exact() => Box::new(low_rank),
                // vectors, and matrices without elements
                _ => Box::new(Identity),
            }
        };
        Self(match (config, config.whole(layout.numel())) {
            (_, Some(one)) => vec![one],
            (CompressorConfig::LowRank { rank, seed }, None) => {
                let parts = (*seed..).zip(MatrixPart::of(layout, *rank));
                parts.map(|part| of_matrix(part, *rank)).collect()
            }
            (_, None) => Vec::new(),
        })
    }

    pub fn load(config: &CompressorConfig, layout: &Layout, lookup: &Lookup<'_>) -> Result<Self> {
        let mut loaded = Self::new(config, layout);
        for (index, compressor) in loaded.0.iter_mut().enumerate() {
            compressor.load(&lookup.nested(&format!("compressors.{index}")))?;
        }
        Ok(loaded)
    }

    /// Compresses piece number `index`.
    pub fn compress(&mut self, index: usize, t: u64, a: &[R]) -> Message<R> {
        match self.0.get_mut(index) {
            Some(compressor) => compressor.compress(t, a),
            None => Message::Dense(a.to_vec()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|compressor| compressor.state_bytes()).sum()
    }

    pub fn save(&self, record: &mut Record<'_>) {
        for (index, compressor) in self.0.iter().enumerate() {
            compressor.save(&mut record.nested(&format!("compressors.{index}")));
        }
    }
}
