//! The compressors that an optimizer can be told to use.

use super::compressor::{
    Compressor, Identity, LowRank, Message, Natural, Qsgd, RandK, ScaledSign, Selection, TopK,
};
use super::window::MatrixPart;
use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::optim::Layout;
use crate::state::{Lookup, Record};

/// A compressor by its options.
///
/// Feedback needs a contraction. Those of [`Kind::Qsgd`] and [`Kind::Natural`] end where `ω` reaches 1:
/// `levels` of at least `√d` are safe.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    /// None: everything is kept.
    Identity,
    /// The largest elements.
    TopK(Selection),
    /// Elements at random places.
    RandK {
        /// Share that is kept, in `(0, 1]`.
        density: f64,
        /// Seed of the places.
        seed: u64,
    },
    /// Signs, and the mean magnitude.
    ScaledSign,
    /// Levels between zero and the norm, rounded at random.
    Qsgd {
        /// Number of levels, at least 1.
        levels: u32,
        /// Seed of the rounding.
        seed: u64,
    },
    /// Powers of two, rounded at random.
    Natural {
        /// Seed of the rounding.
        seed: u64,
    },
    /// Two thin factors of every matrix; vectors are kept whole.
    LowRank {
        /// Columns of the factors, at least 1.
        rank: usize,
        /// Seed of the first factors.
        seed: u64,
    },
}

impl Kind {
    /// Checks every option.
    pub(super) fn validate(&self, optimizer: &'static str) -> Result<()> {
        let wrong = |field, expected: &str, found: String| {
            Err(Error::InvalidHyperparameter { optimizer, field, expected: expected.into(), found })
        };
        match *self {
            Self::TopK(selection) => selection.validate(optimizer),
            Self::RandK { density, .. } => Selection::TopK { density }.validate(optimizer),
            Self::Qsgd { levels: 0, .. } => wrong("levels", "at least 1", "0".into()),
            Self::LowRank { rank: 0, .. } => wrong("rank", "at least 1", "0".into()),
            _ => Ok(()),
        }
    }

    pub(super) fn check_layout(&self, optimizer: &'static str, layout: &Layout) -> Result<()> {
        match self {
            Self::TopK(selection) => selection.check_numel(optimizer, layout.numel()),
            Self::RandK { .. } => {
                Selection::TopK { density: 1.0 }.check_numel(optimizer, layout.numel())
            }
            _ => Ok(()),
        }
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
    pub fn new(kind: &Kind, layout: &Layout) -> Self {
        let one: Box<dyn Compressor<R>> = match *kind {
            Kind::LowRank { rank, seed } => {
                let thin = |(index, part): (usize, MatrixPart)| -> Box<dyn Compressor<R>> {
                    let seed = seed.wrapping_add(index as u64);
                    match LowRank::new(part.rows, part.columns, rank, seed) {
                        Ok(thin) if !part.is_exact() => Box::new(thin),
                        // vectors, and matrices without elements
                        _ => Box::new(Identity),
                    }
                };
                let parts = MatrixPart::of(layout, rank).into_iter().enumerate();
                return Self(parts.map(thin).collect());
            }
            Kind::Identity => Box::new(Identity),
            Kind::TopK(selection) => Box::new(TopK(selection)),
            Kind::RandK { density, seed } => Box::new(RandK { density, unbiased: false, seed }),
            Kind::ScaledSign => Box::new(ScaledSign),
            Kind::Qsgd { levels, seed } => Box::new(Qsgd { levels, seed }),
            Kind::Natural { seed } => Box::new(Natural { seed }),
        };
        Self(vec![one])
    }

    pub fn load(kind: &Kind, layout: &Layout, lookup: &Lookup<'_>) -> Result<Self> {
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

    pub fn save(&self, record: &mut Record<'_>) {
        for (index, compressor) in self.0.iter().enumerate() {
            compressor.save(&mut record.nested(&format!("compressors.{index}")));
        }
    }
}
