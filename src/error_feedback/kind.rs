//! The compressors that an optimizer can be told to use.

use super::compressor::{Compressor, Identity, Message, Selection, TopK};
use crate::error::Result;
use crate::numeric::Real;
use crate::optim::Layout;
use crate::state::{Lookup, Record, StateBytes};

/// A compressor by its options.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    /// None: everything is kept.
    Identity,
    /// The largest elements.
    TopK(Selection),
}

impl Kind {
    /// Checks every option.
    pub(super) fn validate(&self, optimizer: &'static str) -> Result<()> {
        match self {
            Self::Identity => Ok(()),
            Self::TopK(selection) => selection.validate(optimizer),
        }
    }

    pub(super) fn check_layout(&self, optimizer: &'static str, layout: &Layout) -> Result<()> {
        match self {
            Self::TopK(selection) => selection.check_numel(optimizer, layout.numel()),
            Self::Identity => Ok(()),
        }
    }

    /// Where the pieces of a vector begin that are compressed on their own, and how long they are.
    pub(super) fn pieces(&self, layout: &Layout) -> Vec<(usize, usize)> {
        vec![(0, layout.numel())]
    }

    fn build<R: Real>(&self) -> Box<dyn Compressor<R>> {
        match *self {
            Self::Identity => Box::new(Identity),
            Self::TopK(selection) => Box::new(TopK(selection)),
        }
    }
}

/// One compressor for every piece of a vector.
#[derive(Debug)]
pub(super) struct Compressors<R>(Vec<Box<dyn Compressor<R>>>);

impl<R: Real> Compressors<R> {
    pub fn new(kind: &Kind, layout: &Layout) -> Self {
        Self(kind.pieces(layout).iter().map(|_| kind.build()).collect())
    }

    pub fn load(kind: &Kind, layout: &Layout, _: &Lookup<'_>) -> Result<Self> {
        Ok(Self::new(kind, layout))
    }

    /// The message of piece number `index`.
    pub fn compress(&mut self, index: usize, t: u64, a: &[R]) -> Message<R> {
        match self.0.get_mut(index) {
            Some(compressor) => compressor.compress(t, a),
            None => Message::Dense(a.to_vec()),
        }
    }

    pub fn count(&self, _: &mut StateBytes) {}

    pub fn save(&self, _: &mut Record<'_>) {}
}
