//! A registered layer.

use super::sums::LayerSums;
use crate::curvature::layer_factors::LayerFactors;
use crate::curvature::layer_spec::{LayerKind, LayerSpec};
use crate::curvature::layer_state::LayerState;
use crate::error::Result;
use crate::gradient::copy_leaf;
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};
use crate::params::GradientLeaf;
use crate::state::{Lookup, StateBytes};
use ndarray::{Array2, ArrayView2, Axis};

/// A layer, what is remembered of it, and its direction of the last step.
#[derive(Clone, Debug)]
pub(super) struct Layer<T: Element> {
    pub spec: LayerSpec,
    /// Number of its group.
    pub group: usize,
    pub state: LayerState<T::Compute>,
    /// What the step has observed so far.
    pub sums: Option<LayerSums<T::Compute>>,
    /// The direction, as weight and bias are stored.
    weight: Vec<T>,
    bias: Vec<T>,
    /// Whether it is of the last step.
    pub has_direction: bool,
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
        Self::with_state(spec, group, state)
    }

    fn with_state(spec: LayerSpec, group: usize, state: LayerState<T::Compute>) -> Self {
        let (weight, bias) = (Vec::new(), Vec::new());
        Self { spec, group, state, sums: None, weight, bias, has_direction: false }
    }

    /// The same layer with a saved state.
    pub fn loaded(&self, options: &LayerFactors, lookup: &Lookup<'_>) -> Result<Self> {
        let state = LayerState::load(self.spec.factor_orders(), options, lookup)?;
        Ok(Self::with_state(self.spec.clone(), self.group, state))
    }

    /// The direction of the weight, or of the bias.
    pub fn direction(&self, bias: bool) -> &[T] {
        if bias { &self.bias } else { &self.weight }
    }

    /// The gradient as a matrix, outputs × inputs with the column of the bias.
    pub fn gradient(&self, leaves: &LayerLeaves<'_, '_, T>) -> Array2<T::Compute> {
        let ((m, n), columns) = (self.spec.factor_orders(), self.spec.columns());
        let mut weight = vec![T::Compute::default(); m * columns];
        copy_leaf(leaves.weight, &mut weight);
        let mut gradient = Array2::zeros((m, n));
        let (mut own, mut last) = gradient.view_mut().split_at(Axis(1), columns);
        if let Ok(weight) = ArrayView2::from_shape(self.stored_shape(), &weight) {
            own.assign(&if self.is_transposed() { weight.reversed_axes() } else { weight });
        }
        if let Some(bias) = leaves.bias {
            let mut values = vec![T::Compute::default(); m];
            copy_leaf(bias, &mut values);
            last.iter_mut().zip(&values).for_each(|(last, &x)| *last = x);
        }
        gradient
    }

    /// Takes over the direction for `gradient`; returns their scalar product.
    pub fn take_direction(
        &mut self,
        gradient: &Array2<T::Compute>,
        direction: &Array2<T::Compute>,
    ) -> f64 {
        let (own, last) = direction.view().split_at(Axis(1), self.spec.columns());
        let own = if self.is_transposed() { own.reversed_axes() } else { own };
        self.weight.clear();
        self.weight.extend(own.iter().map(|&x| T::store(x)));
        self.bias.clear();
        self.bias.extend(last.iter().map(|&x| T::store(x)));
        self.has_direction = true;
        let mut product = LaneSum::default();
        let (d, g) = (direction.as_standard_layout(), gradient.as_standard_layout());
        let (d, g) = (d.as_slice().unwrap_or_default(), g.as_slice().unwrap_or_default());
        product.extend_pairs(d, g, |d, g| d.widen() * g.widen());
        product.total()
    }

    /// Adds the bytes held.
    pub fn count(&self, bytes: &mut StateBytes) {
        let (m, n) = self.spec.factor_orders();
        bytes.add_parameters(m.saturating_mul(n));
        self.state.count(bytes);
        bytes.add("direction", (self.weight.len() + self.bias.len()) * size_of::<T>());
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
