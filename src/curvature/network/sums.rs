//! Statistics of one step and layer, added up over micro-batches.

use crate::curvature::layer_factors::LayerFactors;
use crate::curvature::layer_rows::LayerRows;
use crate::curvature::layer_spec::LayerSpec;
use crate::curvature::layer_state::{LayerState, moments_along};
use crate::error::Result;
use crate::numeric::Real;
use crate::second_order::factor::GramSum;
use ndarray::{Array2, ArrayRef2};

/// What a step has observed of a layer; nothing of it outlives the step.
#[derive(Clone, Debug)]
pub(super) struct LayerSums<R> {
    /// Gram matrices of output gradients and inputs, if factors are due.
    factors: Option<[GramSum<R>; 2]>,
    /// Both eigenbases, and the sum of squared gradients along them, if these are due.
    moments: Option<([Array2<R>; 2], Array2<R>)>,
    rows: usize,
}

impl<R: Real> LayerSums<R> {
    /// Nothing yet.
    pub fn new(
        spec: &LayerSpec,
        options: &LayerFactors,
        factors_due: bool,
        state: &LayerState<R>,
    ) -> Result<Self> {
        let told = options.factor_options(1, 0);
        let (m, n) = spec.factor_orders();
        let bases = if state.needs_moments() { state.bases(options)? } else { None };
        Ok(Self {
            factors: factors_due.then(|| [m, n].map(|order| GramSum::new(order, &told))),
            moments: bases.map(|bases| (bases, Array2::zeros((m, n)))),
            rows: 0,
        })
    }

    /// Adds samples.
    pub fn add(&mut self, rows: &LayerRows<R>) -> Result<()> {
        if let Some([left, right]) = &mut self.factors {
            left.add(&rows.gradients)?;
            right.add(&rows.inputs)?;
        }
        if let Some((bases, sum)) = &mut self.moments {
            *sum += &moments_along(bases, &rows.inputs, &rows.gradients)?;
        }
        self.rows += rows.inputs.nrows();
        Ok(())
    }

    /// Adds second moments of so many samples.
    pub fn add_moments(&mut self, moments: [&ArrayRef2<R>; 2], samples: usize) -> Result<()> {
        for (sum, gram) in self.factors.iter_mut().flatten().zip(moments) {
            sum.add_gram(gram, samples as f64)?;
        }
        self.rows += samples;
        Ok(())
    }

    /// Whether no number among them, and nothing computed of them, was NaN or infinite.
    pub fn is_finite(&self) -> bool {
        let factors = self.factors.iter().flatten().all(GramSum::is_finite);
        factors && self.moments.iter().all(|(_, sum)| sum.iter().all(|x| x.is_finite()))
    }

    /// The layer takes the statistics; of its factors, both or none.
    pub fn settle(&self, state: &mut LayerState<R>, options: &LayerFactors) -> Result<()> {
        if let Some((_, sum)) = &self.moments {
            state.update_moments(sum, self.rows, options)?;
        }
        match &self.factors {
            Some(sums) => state.update_by_sums(sums, self.rows, options),
            None => Ok(()),
        }
    }
}
