//! The factors of one layer at work: what they observe, and what they do to a gradient.

use super::layer_factors::LayerFactors;
use super::layer_state::{LayerState, moments_along};
use crate::error::{Result, check_finite, check_shape};
use crate::hyper::Hyperparameters;
use crate::numeric::Real;
use crate::second_order::factor::Factor;
use crate::state::{Lookup, Record, StateBytes, StateDict, load_options, problem, save_options};
use ndarray::ArrayRef2;
use std::cell::RefCell;

/// Where the factors stand in a state dict of their own.
const PREFIX: &str = "layer";
/// The options, within the record of a layer.
const OPTIONS: &str = "options";

/// The factors of one layer, which precondition its gradients; [`LayerFactors`] has the equations.
#[derive(Clone, Debug)]
pub struct LayerPreconditioner<R> {
    options: LayerFactors,
    shape: (usize, usize),
    state: LayerState<R>,
    observations: u64,
}

impl LayerFactors {
    /// The factors of a weight of this shape: outputs, inputs.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is out
    /// of range, or `shape` for more than 131,072 outputs or inputs.
    pub fn build<R: Real>(self, shape: (usize, usize)) -> Result<LayerPreconditioner<R>> {
        self.validate()?;
        Self::check_orders(shape)?;
        Ok(LayerPreconditioner::new(self, shape))
    }
}

impl<R: Real> LayerPreconditioner<R> {
    fn new(options: LayerFactors, shape: (usize, usize)) -> Self {
        let state = LayerState::new(shape, &options);
        Self { options, shape, state, observations: 0 }
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
    /// [`Error::RepeatedFailure`](crate::Error::RepeatedFailure). Nothing has changed then.
    pub fn observe(
        &mut self,
        inputs: &ArrayRef2<R>,
        output_gradients: &ArrayRef2<R>,
    ) -> Result<()> {
        self.state.check_failures("weight", &self.options)?;
        self.check_shapes(inputs, output_gradients)?;
        let (factors_due, roots_due) = self.options.due(self.observations + 1);
        if factors_due || self.state.needs_moments() {
            check_samples(inputs, output_gradients)?;
        }
        self.observations += 1;
        let moments = self.update_moments(inputs, output_gradients);
        let updated = moments.and_then(|()| match factors_due {
            true => self.state.update(inputs, output_gradients, &self.options),
            false => Ok(()),
        });
        let done = updated.and_then(|()| if roots_due { self.refresh() } else { Ok(()) });
        self.state.note(done);
        Ok(())
    }

    fn update_moments(
        &mut self,
        inputs: &ArrayRef2<R>,
        output_gradients: &ArrayRef2<R>,
    ) -> Result<()> {
        let bases =
            if self.state.needs_moments() { self.state.bases(&self.options)? } else { None };
        bases.map_or(Ok(()), |bases| {
            let sum = moments_along(&bases, inputs, output_gradients)?;
            self.state.update_moments(&sum, inputs.nrows(), &self.options)
        })
    }

    /// Updates both factors at once, whether due or not. The second moments of `Ekfac` stay as they are;
    /// [`observe`](Self::observe) updates them.
    ///
    /// # Errors
    /// A shape does not fit, there is no sample, a number is not finite, a statistic overflows, or a
    /// decomposition failed. Nothing has changed then.
    pub fn update(&mut self, inputs: &ArrayRef2<R>, output_gradients: &ArrayRef2<R>) -> Result<()> {
        self.check_shapes(inputs, output_gradients)?;
        check_samples(inputs, output_gradients)?;
        self.state.update(inputs, output_gradients, &self.options)
    }

    /// Computes the roots of both factors as they are now, whether due or not. A factor that has seen only
    /// zeros keeps its root.
    ///
    /// # Errors
    /// A decomposition failed, or a root is not finite. Nothing has changed then.
    pub fn refresh(&mut self) -> Result<()> {
        self.state.refresh(&self.options)
    }

    /// `G ← D`, with the norm of G if that is to be kept.
    ///
    /// # Errors
    /// `gradient` does not have the weight's shape, or is not finite; or the direction overflows. The
    /// gradient is then as it was.
    pub fn precondition(&self, gradient: &mut ArrayRef2<R>) -> Result<()> {
        check_shape("gradient", &[self.shape.0, self.shape.1], gradient.shape())?;
        check_finite("a gradient", gradient.iter())?;
        let direction = self.state.direction(gradient, &self.options)?;
        check_finite("a preconditioned gradient", &direction)?;
        gradient.assign(&direction);
        Ok(())
    }

    /// L, of the output gradients, and R, of the inputs.
    pub fn factors(&self) -> &[Factor<R>; 2] {
        &self.state.factors
    }

    /// Number of observations.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// Bytes held.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        bytes.add_parameters(self.shape.0.saturating_mul(self.shape.1));
        self.state.count(&mut bytes);
        bytes
    }

    /// Factors, roots, counts and options.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(LayerFactors::NAME);
        self.save(&mut Record::new(PREFIX, &mut dict));
        dict
    }

    /// Continues from the saved state of a layer with the same shape, storage and way to invert. The options
    /// of the dict replace the own ones.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the first key that does not fit;
    /// nothing has changed then.
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
        record.count("observations", self.observations);
        save_options(&mut self.options.clone(), &mut record.nested(OPTIONS));
        self.state.save(record);
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
        let mut options = self.options.clone();
        load_options(&mut options, &lookup.nested(OPTIONS))?;
        Ok(Self {
            state: LayerState::load(self.shape, &options, lookup)?,
            options,
            shape: self.shape,
            observations: lookup.count("observations")?,
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
}

fn check_samples<R: Real>(inputs: &ArrayRef2<R>, output_gradients: &ArrayRef2<R>) -> Result<()> {
    check_finite("an input", inputs)?;
    check_finite("an output gradient", output_gradients)
}
