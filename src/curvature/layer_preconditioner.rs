//! The factors of one layer at work: what they observe, and what they do to a gradient.

use super::layer_factors::LayerFactors;
use crate::error::{Error, Result, check_finite, check_shape};
use crate::hyper::Hyperparameters;
use crate::linalg::{frobenius, matmul};
use crate::numeric::Real;
use crate::second_order::factor::{Factor, reason};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateDict, problem};
use ndarray::ArrayRef2;
use std::cell::RefCell;

/// Where the factors stand in a state dict of their own.
const PREFIX: &str = "layer";

/// The factors of one layer, which precondition its gradients; [`LayerFactors`] has the equations.
#[derive(Clone, Debug)]
pub struct LayerPreconditioner<R> {
    options: LayerFactors,
    shape: (usize, usize),
    /// L, of the output gradients, and R, of the inputs.
    factors: [Factor<R>; 2],
    observations: u64,
    updates: u64,
    failures: u64,
    problem: &'static str,
}

impl LayerFactors {
    /// The factors of a weight of this shape: outputs, inputs.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is out
    /// of range.
    pub fn build<R: Real>(self, shape: (usize, usize)) -> Result<LayerPreconditioner<R>> {
        self.validate()?;
        Ok(LayerPreconditioner::new(self, shape))
    }
}

impl<R: Real> LayerPreconditioner<R> {
    fn new(options: LayerFactors, shape: (usize, usize)) -> Self {
        let told = options.factor_options(1, 0);
        let factors = [shape.0, shape.1].map(|n| Factor::new(n, &told));
        Self { options, shape, factors, observations: 0, updates: 0, failures: 0, problem: "" }
    }

    /// Updates the statistics from a step's inputs and output gradients, and the roots, each when due.
    ///
    /// `inputs`: samples × in; `output_gradients`: samples × out. If nothing is due, neither is read. After
    /// a decomposition that fails, or a statistic that overflows, the last good factors and roots stay in
    /// use.
    ///
    /// # Errors
    /// A shape does not fit, there is no sample, a number that is read is not finite; or decompositions
    /// have failed more than `tolerated_failures` times since the last root, which is
    /// [`Error::RepeatedFailure`]. Nothing has changed then.
    pub fn observe(
        &mut self,
        inputs: &ArrayRef2<R>,
        output_gradients: &ArrayRef2<R>,
    ) -> Result<()> {
        if self.failures > self.options.tolerated_failures {
            let (failures, problem) = (self.failures, self.problem);
            return Err(Error::RepeatedFailure {
                name: "weight".into(),
                block: 0,
                failures,
                problem,
            });
        }
        self.check_shapes(inputs, output_gradients)?;
        let (factors_due, roots_due) = self.options.due(self.observations + 1);
        if factors_due {
            check_samples(inputs, output_gradients)?;
        }
        self.observations += 1;
        let updated = if factors_due { self.take_in(inputs, output_gradients) } else { Ok(()) };
        let done = updated.and_then(|()| if roots_due { self.refresh() } else { Ok(()) });
        if let Err(error) = done {
            self.failures += 1;
            self.problem = reason(&error);
        }
        Ok(())
    }

    /// Updates both factors at once, whether due or not.
    ///
    /// # Errors
    /// As [`observe`](Self::observe), and those of a decomposition. Nothing has changed then.
    pub fn update(&mut self, inputs: &ArrayRef2<R>, output_gradients: &ArrayRef2<R>) -> Result<()> {
        self.check_shapes(inputs, output_gradients)?;
        check_samples(inputs, output_gradients)?;
        self.take_in(inputs, output_gradients)
    }

    /// Computes the roots of both factors as they are now, whether due or not. A factor that has seen only
    /// zeros keeps its root.
    ///
    /// # Errors
    /// A decomposition failed, or a root is not finite. Nothing has changed then.
    pub fn refresh(&mut self) -> Result<()> {
        let options = self.options.factor_options(1, self.updates);
        // both or none
        let mut factors = self.factors.clone();
        for factor in &mut factors {
            if factor.statistic().diag().iter().any(|&x| x != R::zero()) {
                factor.refresh_root(&options)?;
            }
        }
        (self.factors, self.failures) = (factors, 0);
        Ok(())
    }

    /// `G ← L̂ G R̂`, with the norm of G if that is to be kept.
    ///
    /// # Errors
    /// `gradient` does not have the weight's shape, or is not finite; or the direction overflows. The
    /// gradient is then as it was.
    pub fn precondition(&self, gradient: &mut ArrayRef2<R>) -> Result<()> {
        check_shape("gradient", &[self.shape.0, self.shape.1], gradient.shape())?;
        check_finite("a gradient", gradient.iter())?;
        let [left, right] = &self.factors;
        let mut direction = matmul(&matmul(&left.root(), gradient)?, &right.root())?;
        if self.options.keep_norm {
            let (wanted, length) = (frobenius(gradient), frobenius(&direction));
            let ratio = if length > 0.0 { wanted / length } else { 1.0 };
            direction.mapv_inplace(|x| R::of(ratio * x.widen()));
        }
        check_finite("a preconditioned gradient", &direction)?;
        gradient.assign(&direction);
        Ok(())
    }

    /// L, of the output gradients, and R, of the inputs.
    pub fn factors(&self) -> &[Factor<R>; 2] {
        &self.factors
    }

    /// Number of observations.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// Bytes held.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        bytes.add_parameters(self.shape.0.saturating_mul(self.shape.1));
        self.factors.iter().for_each(|factor| factor.count(&mut bytes));
        bytes
    }

    /// Factors, roots and counts. Options are not part of it.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(LayerFactors::NAME);
        self.save(&mut Record::new(PREFIX, &mut dict));
        dict
    }

    /// Continues from the saved state of a layer with the same shape and options.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the first key that does not fit; nothing has changed then.
    pub fn load_state_dict(&mut self, dict: &StateDict) -> Result<()> {
        dict.check_header(LayerFactors::NAME)?;
        let used = RefCell::default();
        let loaded = self.loaded(&Lookup::new(PREFIX, dict, &used))?;
        let mut keys = dict.scalars.keys().chain(dict.tensors.keys());
        match keys.find(|&key| !used.borrow().contains(key)) {
            Some(key) => return Err(problem(key, "unknown key")),
            None => *self = loaded,
        }
        Ok(())
    }

    /// Writes the state under the record's keys, so that many layers share one dict.
    pub fn save(&self, record: &mut Record<'_>) {
        let mut count = |name: &str, count: u64| {
            record.scalar(name, Scalar::Int(i64::try_from(count).unwrap_or(i64::MAX)));
        };
        count("observations", self.observations);
        count("updates", self.updates);
        count("failures", self.failures);
        for (axis, factor) in self.factors.iter().enumerate() {
            factor.save(&mut record.nested(&format!("factor{axis}")));
        }
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As [`load_state_dict`](Self::load_state_dict).
    pub fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        *self = self.loaded(lookup)?;
        Ok(())
    }

    fn loaded(&self, lookup: &Lookup<'_>) -> Result<Self> {
        let count = |name: &str| {
            let found = lookup.scalar(name).and_then(Scalar::as_u64);
            found.ok_or_else(|| lookup.problem(name, "is not a count"))
        };
        let told = self.options.factor_options(1, 0);
        let factor = |name, n| Factor::load(n, &told, &lookup.nested(name));
        Ok(Self {
            options: self.options.clone(),
            shape: self.shape,
            factors: [factor("factor0", self.shape.0)?, factor("factor1", self.shape.1)?],
            observations: count("observations")?,
            updates: count("updates")?,
            failures: count("failures")?,
            problem: "a decomposition failed before the state was saved",
        })
    }

    fn check_shapes(&self, inputs: &ArrayRef2<R>, output_gradients: &ArrayRef2<R>) -> Result<()> {
        let samples = inputs.nrows();
        if samples == 0 {
            return Err(LayerFactors::invalid("inputs", "a row per sample, at least one", "none"));
        }
        check_shape("inputs", &[samples, self.shape.1], inputs.shape())?;
        check_shape("output_gradients", &[samples, self.shape.0], output_gradients.shape())
    }

    /// Both factors, or none.
    fn take_in(&mut self, inputs: &ArrayRef2<R>, output_gradients: &ArrayRef2<R>) -> Result<()> {
        let options = self.options.factor_options(inputs.nrows(), self.updates);
        let mut factors = self.factors.clone();
        for (factor, rows) in factors.iter_mut().zip([output_gradients, inputs]) {
            factor.accumulate_mode(&rows.view().into_dyn(), 1, &options)?;
        }
        (self.factors, self.updates) = (factors, self.updates + 1);
        Ok(())
    }
}

fn check_samples<R: Real>(inputs: &ArrayRef2<R>, output_gradients: &ArrayRef2<R>) -> Result<()> {
    check_finite("an input", inputs)?;
    check_finite("an output gradient", output_gradients)
}
