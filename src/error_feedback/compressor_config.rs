//! The compressors that an optimizer can be told to use.

use super::compressor::{
    Compressor, Identity, LowRank, Message, Natural, Qsgd, RandK, ScaledSign, ScaledTopK,
    Selection, TopK, check_contraction,
};
use super::window::MatrixPart;
use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::optim::Layout;
use crate::state::{Lookup, Record};

/// A compressor by its options.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CompressorConfig {
    /// None: everything is kept.
    Identity,
    /// The largest elements.
    TopK(Selection),
    /// The largest elements beside what was sent of them before: those that Adagrad would move furthest.
    ScaledTopK {
        /// How many.
        selection: Selection,
        /// What squares sent begin with, positive.
        eps: f64,
    },
    /// Elements at random places.
    RandK(RandK),
    /// Signs, and the mean magnitude.
    ScaledSign,
    /// Levels between zero and the norm, rounded at random.
    Qsgd(Qsgd),
    /// Powers of two, rounded at random.
    Natural(Natural),
    /// Two thin factors of every matrix; vectors are kept whole.
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
            // these have options that no vector has a say in
            _ => self.whole::<f64>(0).map_or(Ok(()), |compressor| compressor.validate(0)),
        }
    }

    /// Checks that a vector can be compressed, and with `feedback` that its residual stays bounded.
    pub(super) fn check_layout(
        &self,
        optimizer: &'static str,
        layout: &Layout,
        feedback: bool,
    ) -> Result<()> {
        if let Self::TopK(selection) | Self::ScaledTopK { selection, .. } = self {
            // these are contractions
            return selection.check_numel(optimizer, layout.numel());
        }
        match self.whole::<f64>(layout.numel()).filter(|_| feedback) {
            Some(compressor) => check_contraction(optimizer, &*compressor, layout.numel()),
            None => Ok(()),
        }
    }

    /// The compressor of a whole vector of `numel` elements; `None`: matrices are compressed one by one.
    fn whole<R: Real>(&self, numel: usize) -> Option<Box<dyn Compressor<R>>> {
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

    /// The matrices of a vector, if they are compressed one by one.
    fn matrices(&self, layout: &Layout) -> Option<Vec<MatrixPart>> {
        match self {
            Self::LowRank { rank, .. } => Some(MatrixPart::of(layout, *rank)),
            _ => None,
        }
    }

    /// Where the pieces of a vector begin that are compressed on their own, and how long they are.
    pub(super) fn pieces(&self, layout: &Layout) -> Vec<(usize, usize)> {
        match self.matrices(layout) {
            Some(parts) => parts.iter().map(|part| (part.offset, part.numel())).collect(),
            None => vec![(0, layout.numel())],
        }
    }
}

/// One compressor for every piece of a vector.
#[derive(Debug)]
pub(super) struct Compressors<R>(Vec<Box<dyn Compressor<R>>>);

impl<R: Real> Compressors<R> {
    pub fn new(kind: &CompressorConfig, layout: &Layout) -> Self {
        let thin = |(seed, part): (u64, MatrixPart), rank| -> Box<dyn Compressor<R>> {
            match LowRank::new(part.rows, part.columns, rank, seed) {
                Ok(thin) if !part.is_exact() => Box::new(thin),
                // vectors, and matrices without elements
                _ => Box::new(Identity),
            }
        };
        Self(match (kind, kind.whole(layout.numel())) {
            (_, Some(one)) => vec![one],
            (CompressorConfig::LowRank { rank, seed }, None) => {
                let parts = (*seed..).zip(MatrixPart::of(layout, *rank));
                parts.map(|part| thin(part, *rank)).collect()
            }
            (_, None) => Vec::new(),
        })
    }

    pub fn load(kind: &CompressorConfig, layout: &Layout, lookup: &Lookup<'_>) -> Result<Self> {
        let mut loaded = Self::new(kind, layout);
        for (index, compressor) in loaded.0.iter_mut().enumerate() {
            compressor.load(&lookup.nested(&format!("compressors.{index}")))?;
        }
        Ok(loaded)
    }

    /// The message of piece number `index`.
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
