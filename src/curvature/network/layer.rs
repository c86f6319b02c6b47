//! A registered layer.

use super::sums::LayerSums;
use crate::curvature::layer_factors::LayerFactors;
use crate::curvature::layer_spec::{LayerKind, LayerSpec};
use crate::curvature::layer_state::LayerState;
use crate::error::Result;
use crate::numeric::Element;
use crate::params::GradientLeaf;
use crate::state::{Lookup, StateBytes};
use crate::tree::ReadLeaf;
use ndarray::{Array2, ArrayView2, Axis};

/// A layer, and what is remembered of it.
#[derive(Clone, Debug)]
pub(super) struct Layer<T: Element> {
    pub spec: LayerSpec,
    /// Number of its group.
    pub group: usize,
    pub state: LayerState<T::Compute>,
    /// What the step has observed so far.
    pub sums: Option<LayerSums<T::Compute>>,
}

/// The gradients of a layer in one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerLeaves<'t, 'g, T> {
    pub weight: &'t GradientLeaf<'g, T>,
    pub bias: Option<&'t GradientLeaf<'g, T>>,
}

impl<T: Element> Layer<T> {
    /// A layer of which nothing was observed.
    pub fn new(spec: LayerSpec, group: usize, options: &LayerFactors) -> Self {
        let state = LayerState::new(spec.factor_orders(), options);
        Self { spec, group, state, sums: None }
    }

    /// The same layer with a saved state.
    pub fn loaded(&self, options: &LayerFactors, lookup: &Lookup<'_>) -> Result<Self> {
        let state = LayerState::load(self.spec.factor_orders(), options, lookup)?;
        Ok(Self { spec: self.spec.clone(), group: self.group, state, sums: None })
    }

    /// The gradient as a matrix, outputs × inputs with the column of the bias.
    pub fn gradient(&self, leaves: &LayerLeaves<'_, '_, T>) -> Array2<T::Compute> {
        let ((m, n), columns) = (self.spec.factor_orders(), self.spec.columns());
        let mut weight = vec![T::Compute::default(); m * columns];
        leaves.weight.load(0, &mut weight);
        let mut gradient = Array2::zeros((m, n));
        let (mut own, mut last) = gradient.view_mut().split_at(Axis(1), columns);
        if let Ok(weight) = ArrayView2::from_shape(self.stored_shape(), &weight) {
            own.assign(&if self.is_transposed() { weight.reversed_axes() } else { weight });
        }
        if let Some(bias) = leaves.bias {
            let mut values = vec![T::Compute::default(); m];
            bias.load(0, &mut values);
            last.iter_mut().zip(&values).for_each(|(last, &x)| *last = x);
        }
        gradient
    }

    /// A direction as weight and bias are stored.
    pub fn stored(&self, direction: &Array2<T::Compute>) -> (Vec<T>, Vec<T>) {
        let (own, last) = direction.view().split_at(Axis(1), self.spec.columns());
        let own = if self.is_transposed() { own.reversed_axes() } else { own };
        let stored = |part: ArrayView2<'_, T::Compute>| part.iter().map(|&x| T::store(x)).collect();
        (stored(own), stored(last))
    }

    /// Adds the bytes held.
    pub fn count(&self, bytes: &mut StateBytes) {
        let (m, n) = self.spec.factor_orders();
        bytes.add_parameters(m.saturating_mul(n));
        self.state.count(bytes);
    }

    fn is_transposed(&self) -> bool {
        matches!(self.spec.kind, LayerKind::Linear { transposed: true })
    }

    /// Shape of the weight as a matrix in memory.
    fn stored_shape(&self) -> (usize, usize) {
        let (outputs, columns) = (self.spec.outputs(), self.spec.columns());
        if self.is_transposed() { (columns, outputs) } else { (outputs, columns) }
    }
}
